"""Copies of trees that somebody hostile made, and who may ask for them."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.local.isolation import copying

from .isolated import Isolated, Tracked, inside, run, start


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    running = start(tmp_path_factory.mktemp("isolation") / "root")
    yield running
    running.end()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def copied(source: Path) -> Path:
    target = source.parent / "target"
    copying.copy(source, target, threading.Event())
    return target


def test_links_are_copied_and_not_followed(source: Path) -> None:
    (source.parent / "secret").write_text("of the host")
    (source / "file").symlink_to(source.parent / "secret")
    (source / "folder").symlink_to(source.parent)
    target = copied(source)
    assert os.readlink(target / "file") == str(source.parent / "secret")
    assert (target / "folder").is_symlink()


def test_a_folder_swapped_for_a_link_is_not_entered(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = source.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    (source / "folder").mkdir()
    look = os.stat

    def swapped(name: str, **options: object) -> os.stat_result:
        found = look(name, **options)  # type: ignore[arg-type]
        if name == "folder":
            (source / "folder").rename(source.parent / "away")
            (source / "folder").symlink_to(outside)
        return found

    monkeypatch.setattr(os, "stat", swapped)
    with pytest.raises(OSError, match="Not a directory"):
        copied(source)
    assert not list(source.parent.glob("target/**/secret"))


def test_names_of_any_bytes_modes_and_attributes(source: Path) -> None:
    name = os.fsdecode(b"\xff \n*")
    (source / name).write_text("x")
    os.setxattr(source / name, "user.e2b.key", b"value")
    (source / name).chmod(0o4751)
    os.utime(source, (1, 2))
    target = copied(source)
    assert os.listdir(target) == [name]
    assert os.getxattr(target / name, "user.e2b.key") == b"value"
    assert (target / name).stat().st_mode & 0o7777 == 0o4751
    assert target.stat().st_mtime == 2


def test_files_of_several_names_stay_one(source: Path) -> None:
    (source / "deep").mkdir()
    for kind in ("file", "pipe"):
        if kind == "file":
            (source / kind).write_text("x")
        else:
            os.mkfifo(source / kind)
        (source / "deep" / kind).hardlink_to(source / kind)
    target = copied(source)
    for kind in ("file", "pipe"):
        assert (target / kind).samefile(target / "deep" / kind)
        assert (target / kind).stat().st_nlink == 2
    assert sorted(os.listdir(target.parent)) == ["source", "target"]


def test_holes_stay_holes(source: Path) -> None:
    with (source / "holes").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 30)
        file.write(b"middle")
        file.truncate(1 << 31)
    found = (copied(source) / "holes").stat()
    assert found.st_size == 1 << 31
    assert found.st_blocks * 512 < 1 << 20
    with (source.parent / "target/holes").open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(1 << 30)
        assert file.read(7) == b"middle\0"


def test_it_gives_up_when_the_runtime_ends(source: Path) -> None:
    (source / "file").write_text("x")
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(copying.Stopped):
        copying.copy(source, source.parent / "target", stopped)


@inside
async def test_a_copy_that_fails_leaves_nothing(driver: Tracked) -> None:
    box = await driver.box()
    deep = (
        "import os\nos.chdir('/tmp')\n"
        "for _ in range(1100): os.mkdir('d'); os.chdir('d')"
    )
    assert await run(box, ("/usr/bin/env", "python3", "-c", deep)) == (0, "")
    with pytest.raises(OSError, match="nested too deep"):
        await box.snapshot("stoodeep")
    assert await driver.driver.snapshots() == []
    with pytest.raises(OSError, match="not an id"):
        await box.snapshot("../../etc")
    with pytest.raises(OSError, match="not an id"):
        await driver.driver.remove_snapshot("..")
    await run(box, "rm -r /tmp/d")
    await box.snapshot("staken")
    with pytest.raises(OSError, match="this id already"):
        await box.snapshot("staken")
    assert await driver.driver.snapshots() == ["staken"]
    await driver.driver.remove_snapshot("staken")
    await driver.driver.remove_snapshot("staken")
    assert await driver.driver.snapshots() == []
