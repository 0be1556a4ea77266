"""Folders as one file, tar and zip, as they are streamed."""

import io
import stat
import tarfile
import zipfile

import pytest

from sandboxes import archives, gateway
from sandboxes.errors import NotFound

pytestmark = pytest.mark.django_db(transaction=True)
MAKE = (
    "mkdir -p ~/d/s && cd ~/d && head -c 3000000 /dev/urandom > s/r; echo hi > -x; "
    "mkfifo p; ln -s s/r link; ln -- -x hard; mkdir empty; echo é > 'é \"q\".txt'; "
    "chmod 755 ./-x; touch -d 1970-01-02 old"
)


@pytest.fixture
def folder(sandbox):
    assert gateway.run(sandbox, MAKE).exit_code == 0
    return sandbox


def content(sandbox, path: str) -> bytes:
    return b"".join(gateway.stream(sandbox, f"cat {path}"))


def test_a_tar_holds_the_folder(folder) -> None:
    packed = b"".join(archives.tar(folder, "d"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as found:
        assert {"d/s/r", "d/-x", "d/empty"} <= set(found.getnames())
        member = found.extractfile("d/s/r")
        assert member is not None
        assert member.read() == content(folder, "/home/user/d/s/r")


def test_a_zip_holds_the_same(folder) -> None:
    packed = b"".join(archives.zip(folder, "d"))
    with zipfile.ZipFile(io.BytesIO(packed)) as found:
        assert found.testzip() is None
        names = set(found.namelist())
        assert {"d/s/r", "d/-x", "d/empty/", 'd/é "q".txt', "d/old"} <= names
        assert "d/p" not in names
        assert found.read("d/s/r") == content(folder, "/home/user/d/s/r")
        assert found.read("d/-x") in (b"hi\n", b"hard")
        link = found.getinfo("d/link")
        assert stat.S_ISLNK(link.external_attr >> 16)
        assert found.read(link) == b"s/r"


def test_a_zip_comes_in_pieces_and_stops_with_its_reader(folder) -> None:
    gateway.run(folder, "head -c 30000000 /dev/urandom > ~/d/large")
    pieces = archives.zip(folder, "d")
    first = next(pieces)
    assert len(first) < 4 << 20
    pieces.close()
    left = gateway.run(folder, "sleep 0.3; pgrep -c tar", user="root")
    assert left.stdout.strip() == "0"


def test_a_sparse_file_of_10_gib_is_packed_by_what_is_in_it(folder) -> None:
    gateway.run(folder, "mkdir ~/sparse; truncate -s 10G ~/sparse/f")
    assert len(b"".join(archives.tar(folder, "sparse"))) < 1 << 20


@pytest.mark.parametrize("pack", [archives.tar, archives.zip])
def test_what_is_not_there_is_not_found(sandbox, pack) -> None:
    with pytest.raises(NotFound):
        next(pack(sandbox, "/nowhere"))
