"""Files of a sandbox whose owner may be hostile."""

import io

import pytest

from sandboxes import archives, files, gateway
from sandboxes.errors import Invalid, NotFound
from sandboxes.models import Sandbox

pytestmark = pytest.mark.django_db(transaction=True)


def make(sandbox: Sandbox, command: str) -> None:
    result = gateway.run(sandbox, f"mkdir -p ~/d && cd ~/d && {command}")
    assert result.exit_code == 0, result.stderr


def names(sandbox: Sandbox, path: str = "d") -> list[str]:
    return [entry.name for entry in files.list_dir(sandbox, path)[0]]


def test_a_folder_lists_folders_first_and_what_links_lead_to(sandbox) -> None:
    make(sandbox, "echo hello > b; mkdir z; ln -s z a; ln -s b c; ln -s none n")
    entries, is_cut = files.list_dir(sandbox, "d")
    shown = [(e.name, e.is_dir, e.is_file, e.is_link) for e in entries]
    assert shown == [
        ("a", True, False, True),
        ("z", True, False, False),
        ("b", False, True, False),
        ("c", False, True, True),
        ("n", False, False, True),
    ]
    assert not is_cut
    assert (entries[2].size_bytes, entries[2].mode) == (6, "-rw-r--r--")
    assert entries[2].path == "/home/user/d/b"
    assert entries[2].modified_at is not None


def test_a_link_to_a_folder_opens_as_one(sandbox) -> None:
    make(sandbox, "mkdir real; touch real/x; ln -s real link")
    assert names(sandbox, "d/link") == ["x"]


WILD = ["-rf", "a b", "a\nb", "q\"uo'te", "<img src=x>", "\u202eexe.txt", "$(id)", "*"]


@pytest.mark.parametrize("name", WILD)
def test_wild_names_are_names(sandbox, name: str) -> None:
    gateway.upload(sandbox, f"/home/user/d/{name}", io.BytesIO(b"wild"))
    assert names(sandbox) == [name]
    assert files.read(sandbox, f"d/{name}") == b"wild"
    assert files.stat(sandbox, f"d/{name}").name == name


def test_a_name_that_is_no_text_is_shown_all_the_same(sandbox) -> None:
    make(sandbox, r"touch $'\xff\xfe'")
    assert names(sandbox) == ["\ufffd\ufffd"]


def test_a_huge_folder_is_cut(sandbox) -> None:
    make(sandbox, "seq 20000 | xargs touch")
    entries, is_cut = files.list_dir(sandbox, "d")
    assert (len(entries), is_cut) == (files.MAX_ENTRIES, True)


@pytest.mark.parametrize("path", ["/nowhere", "nowhere/x", "/etc/passwd/x"])
def test_what_is_not_there_is_not_found(sandbox, path: str) -> None:
    for look in (files.list_dir, files.stat, files.open_file, archives.tar):
        with pytest.raises(NotFound):
            look(sandbox, path)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "\udcff"])
def test_what_is_no_path_is_refused(sandbox, path: str) -> None:
    with pytest.raises(Invalid):
        files.stat(sandbox, path)


def test_a_file_is_no_folder_and_a_folder_no_file(sandbox) -> None:
    make(sandbox, "touch f")
    with pytest.raises(Invalid):
        files.list_dir(sandbox, "d/f")
    with pytest.raises(Invalid):
        files.open_file(sandbox, "d")


@pytest.mark.parametrize("name", ["pipe", "to-pipe", "/dev/zero", "/dev/tty"])
def test_what_may_never_end_is_not_read(sandbox, name: str) -> None:
    make(sandbox, "mkfifo pipe; ln -s pipe to-pipe")
    with pytest.raises(Invalid, match="pipe"):
        files.read(sandbox, f"/home/user/d/{name}" if name[0] != "/" else name)


def test_a_large_file_is_read_no_further_than_shown(sandbox) -> None:
    make(sandbox, "truncate -s 3G big")
    assert files.stat(sandbox, "d/big").size_bytes == 3 << 30
    assert files.read(sandbox, "d/big") == bytes(files.MAX_VIEW_BYTES)


@pytest.mark.parametrize(
    ("printed", "outcome"),
    [
        (r"no record\0", NotFound),
        (r"d d x nan d------ w\0", None),
        (r"d d 1 1e400 d------ w\0d d \0\0 \0", None),
    ],
)
def test_a_tool_that_lies_does_no_harm(sandbox, printed: str, outcome) -> None:
    forged = f"find() {{ printf '{printed}'; yes | head -c 30000000; }}"
    gateway.upload(sandbox, "/tmp/forged", io.BytesIO(forged.encode()))
    gateway.run(sandbox, "cp /tmp/forged /root/.bash_profile", user="root")
    if outcome:
        with pytest.raises(outcome):
            files.list_dir(sandbox, "d")
    else:
        assert len(files.list_dir(sandbox, "d")[0]) < 5


def test_paths_start_at_the_working_folder() -> None:
    sandbox = Sandbox(workdir="/srv/app")
    assert files.clean(sandbox, "x/../y") == "/srv/app/y"
    assert files.clean(sandbox, "../../../../etc") == "/etc"
    assert files.clean(Sandbox(workdir="app"), "x") == "/home/user/app/x"
