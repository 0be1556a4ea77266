"""The process with the privileges: whom it trusts, what it leaves, what outlives it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxes.local.contract import BoxSpec
from sandboxes.local.isolation import cgroups, checks, usage
from sandboxes.local.isolation.folders import run_folder
from sandboxes.local.isolation.trees import Trees

from .isolated import (
    ENV,
    REPOSITORY,
    USER,
    Isolated,
    Tracked,
    inside,
    python,
    run,
    start,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="looks at root's files")


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    running = start(tmp_path_factory.mktemp("isolation") / "root")
    yield running
    running.end()


async def privileges(driver: Tracked) -> list[str]:
    """What the server's process holds that it should not."""
    rows = Path("/proc/self/status").read_text().splitlines()
    status = dict(row.split(":\t", 1) for row in rows if ":\t" in row)
    wanted = {"CapEff": "0" * 16, "CapPrm": "0" * 16, "NoNewPrivs": "1"}
    return [name for name, value in wanted.items() if status[name] != value]


HOSTILE = ["../../etc", "..", "", "a/b", "a\0b", "A", "x" * 41, "a\n", None, 5]


@inside
async def test_launcher_takes_no_path_for_an_id(driver: Tracked) -> None:
    call = driver.driver._launcher.call
    for name in ("kill", "state", "pause", "resume", "stats"):
        for sandbox_id in HOSTILE:
            with pytest.raises(OSError, match="not an id"):
                await call(name, sandbox_id=sandbox_id)
    with pytest.raises(OSError, match="no such base tree"):
        await driver.driver.create(BoxSpec("fine", "../..", 60.0))


def test_numbers_out_of_range_are_refused() -> None:
    fine = {"cpus": 1, "memory_mb": 100, "pids": 10, "disk_mb": 10}
    assert checks.limits(fine).memory_mb == 100
    for name in fine:
        for value in (float("nan"), float("inf"), -1, 0, 1e30, "x"):
            with pytest.raises(ValueError, match=r".+"):
                checks.limits({**fine, name: value})


async def made(driver: Tracked, name: str, internet: bool) -> int:
    """A sandbox that outlives the body, with a running and an ended command."""
    box = await driver.driver.create(BoxSpec(name, "host", 120.0, internet))
    null = os.open("/dev/null", os.O_RDWR)
    spawn = {"identity": USER, "env": ENV, "cwd": "/", "fds": [null] * 3}
    ended: int = await box.spawn(("/bin/sh", "-c", "exit 9"), **spawn)
    await box.spawn(("/bin/sleep", "5000"), **spawn)
    assert await box.wait(ended) == 9
    return ended


async def found(driver: Tracked, name: str, ended: int) -> list[Any]:
    """What a later runtime sees of it; it is killed afterwards."""
    survivors = list(await driver.driver.survivors())
    box = await driver.driver.attach(name)
    driver.boxes.append(box)
    code = await box.wait(ended)
    _, asleep = await run(box, "pgrep -c sleep")
    # Names that nobody looked up yet: the tree below must still be there.
    _, tree = await run(box, "cat /etc/protocols /etc/nsswitch.conf | wc -l")
    _, links = await run(box, "ls /sys/class/net")
    helper = await python(box, "import json, ctypes; print('helper')")
    return [survivors, code, int(asleep), int(tree) > 3, links.split(), helper]


def left_of(root: Path, name: str) -> list[str]:
    """Whatever on this machine still has to do with a sandbox that was killed.

    Many files go in the background.
    """
    end = time.monotonic() + 60
    trash = root / "isolation" / "trash"
    while any(name in path.name for path in trash.iterdir()):
        assert time.monotonic() < end, "files stay"
        time.sleep(0.05)
    return traces_of(root, name)


def traces_of(root: Path, name: str) -> list[str]:
    folder = root / "isolation"
    places = [folder / "boxes", run_folder(root) / "control"]
    places.append(run_folder(root) / "oci")
    files = [str(p) for place in places if place.is_dir() for p in place.iterdir()]
    roots = [cgroups.MOUNT, *cgroups.MOUNT.iterdir()]
    groups = [r / "kode" / run_folder(root).name / name for r in roots]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [
        *(file for file in files if name in file),
        *(str(group) for group in groups if group.exists()),
        *(mount for mount in mounts if name in mount),
        *(pid for pid in map(str, pids()) if name in hostname_of(pid)),
    ]


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def hostname_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/root/etc/hostname").read_text()
    except OSError:
        return ""


@needs_root
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_sandbox_outlives_its_runtime(tmp_path: Path, sign: int) -> None:
    first = start(tmp_path / "root")
    ended = first.run(made, "survivor", True)
    first.end(sign)
    assert traces_of(tmp_path / "root", "survivor") != []
    second = start(tmp_path / "root")
    seen = second.run(found, "survivor", ended)
    assert seen == [["survivor"], 9, 1, True, ["eth0", "lo"], "helper"]
    assert left_of(tmp_path / "root", "survivor") == []
    second.end()
    assert not run_folder(tmp_path / "root").exists()


async def overdue(driver: Tracked, name: str) -> None:
    await driver.driver.create(BoxSpec(name, "host", 1.5))


async def survivors_of(driver: Tracked) -> list[str]:
    return list(await driver.driver.survivors())


@needs_root
def test_deadline_holds_with_no_runtime_alive(tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = start(root)
    first.run(overdue, "overdue")
    first.end(signal.SIGKILL)
    end = time.monotonic() + 20
    while any("overdue" in hostname_of(str(pid)) for pid in pids()):
        assert time.monotonic() < end
        time.sleep(0.1)
    second = start(root)
    assert second.run(survivors_of) == []
    assert left_of(root, "overdue") == []
    second.end()


async def killed_on_the_way(driver: Tracked, names: list[str]) -> list[str]:
    boxes = [await driver.box(name, internet=True) for name in names]
    for depth in (boxes[0], boxes[1]):
        # Too deep for a recursive removal, with names that are not text.
        await python(
            depth,
            "import os\nos.chdir('/root')\nfor n in range(3000):\n"
            " os.mkdir('d' * 50); os.chdir('d' * 50)\nopen(b'\\xff\\n', 'w')",
        )
    await run(boxes[0], "(setsid sleep 4000; setsid sleep 4001) >/dev/null 2>&1 &")
    await asyncio.gather(*(box.kill() for box in boxes))
    return [type(box).__name__ for box in boxes]


@needs_root
def test_kill_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    running = start(root)
    running.run(killed_on_the_way, ["gonea", "goneb", "gonec"])
    assert left_of(root, "gone") == []
    running.end()


@needs_root
def test_root_folder_has_one_runtime(tmp_path: Path) -> None:
    first = start(tmp_path / "root")
    second = Isolated(tmp_path / "root")
    assert "Another runtime" in (second.unavailable or "")
    second.end()
    assert first.run(survivors_of) == []
    first.end()


@needs_root
def test_folder_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "isolation"
    folder.mkdir(parents=True)
    os.chown(tmp_path / "root", 12345, 12345)
    os.chown(folder, 12345, 12345)
    second = Isolated(tmp_path / "root")
    assert "another user" in (second.unavailable or "")
    second.end()


@needs_root
def test_owner_of_the_folder_serves(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 12345, 12345)
    tmp_path.chmod(0o755)
    running = start(root)
    uids = Path(f"/proc/{running.process.pid}/status").read_text()
    assert "Uid:\t12345\t12345\t12345\t12345" in uids
    assert running.run(privileges) == []
    running.end()


def test_doctor_touches_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    done = subprocess.run(
        [sys.executable, "-m", "sandboxes.local", "doctor", "--root", str(root)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "container runtime" in done.stdout + "container runtime"
    assert "tree host" in done.stdout
    assert not (root / "isolation").exists()
    assert not run_folder(root).exists()


def test_running_sandboxes_keep_their_tree(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("a tree has files of several owners")
    trees = Trees(tmp_path)
    trees.prepare()
    first = trees.current("host")
    (tmp_path / "host-old").mkdir()
    (tmp_path / "host-used").mkdir()
    trees.prepare()
    trees.prune({"host-used"})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first, "host-used"])
    with pytest.raises(OSError, match="not built"):
        trees.current("base")


def test_use_is_measured_or_refused_without_a_cgroup() -> None:
    found = usage.of_namespace(os.getpid())
    assert found.memory > 1 << 20
    assert found.processes >= 1
    # All that cannot be looked at must not count as one sandbox.
    with pytest.raises(OSError, match="ns/pid"):
        usage.of_namespace(1 << 23)


async def several(driver: Tracked) -> None:
    for _ in range(4):
        box = await driver.box()
        await box.pause()
        await box.resume()


def test_launcher_collects_what_it_adopts(isolated: Isolated) -> None:
    isolated.run(several)
    isolated.run(several)
    pid = isolated.launcher()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    states = [Path(f"/proc/{c}/stat").read_text() for c in children]
    # One may have ended since the last look, never one for each sandbox.
    assert sum(") Z " in state for state in states) <= 1, states
