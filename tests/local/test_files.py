"""Files inside a sandbox, driven by the unmodified SDK."""

import io
import os
from datetime import UTC, datetime, timedelta

import pytest
from e2b import FileNotFoundException, FileType, Sandbox
from e2b.exceptions import (
    AuthenticationException,
    InvalidArgumentException,
    NotFoundException,
)

from .server import Runtime, fetch

PAYLOAD = os.urandom(1 << 20) * 8


def test_write_and_read(shared: Sandbox) -> None:
    info = shared.files.write("a/b/ž.txt", "hello\n")
    assert (info.name, info.path) == ("ž.txt", "/home/user/a/b/ž.txt")
    assert shared.files.read("a/b/ž.txt") == "hello\n"
    assert shared.files.read("~/a/b/ž.txt", format="bytes") == b"hello\n"
    assert shared.commands.run("stat -c %U a a/b a/b/*").stdout == "user\n" * 3


def test_writing_again_replaces(shared: Sandbox) -> None:
    shared.files.write("again", "a long text")
    shared.files.write("again", "short")
    assert shared.files.read("again") == "short"


@pytest.mark.parametrize("gzip", [False, True])
def test_large_files_are_whole(shared: Sandbox, gzip: bool) -> None:
    shared.files.write("big", PAYLOAD, gzip=gzip)
    assert shared.files.read("big", format="bytes", gzip=gzip) == PAYLOAD


def test_streams(shared: Sandbox) -> None:
    shared.files.write("stream", io.BytesIO(PAYLOAD))
    read = b"".join(shared.files.read("stream", format="stream"))
    assert read == PAYLOAD
    shared.files.write("pieces", (PAYLOAD[:1000] for _ in range(3)))
    assert shared.files.read("pieces", format="bytes") == PAYLOAD[:1000] * 3


def test_several_files_in_one_upload(shared: Sandbox) -> None:
    files = [{"path": f"many/{n}.txt", "data": f"text {n}"} for n in range(5)]
    written = shared.files.write_files(files)
    assert [info.path for info in written] == [
        f"/home/user/many/{n}.txt" for n in range(5)
    ]
    assert shared.files.read("many/3.txt") == "text 3"


def test_files_belong_to_the_user_named(shared: Sandbox) -> None:
    shared.files.write("/etc/from-root", "x", user="root")
    assert shared.files.get_info("/etc/from-root").owner == "root"
    assert shared.files.read("/etc/from-root") == "x"
    with pytest.raises(AuthenticationException):
        shared.files.read("/etc/from-root", user="nobodyknows")


def test_what_is_no_file_is_refused(shared: Sandbox) -> None:
    with pytest.raises(FileNotFoundException):
        shared.files.read("/nope")
    with pytest.raises(InvalidArgumentException, match="is a directory"):
        shared.files.read("/etc")
    with pytest.raises(InvalidArgumentException, match="is a directory"):
        shared.files.write("/etc", "x")
    with pytest.raises(InvalidArgumentException, match="not a regular file"):
        shared.files.read("/dev/zero")
    shared.commands.run("mkfifo pipe")
    with pytest.raises(InvalidArgumentException, match="not a regular file"):
        shared.files.read("pipe")


def test_a_link_does_not_lead_out_of_the_sandbox(
    runtime: Runtime, shared: Sandbox
) -> None:
    secret = str(runtime.root / "api-key")
    shared.commands.run(f"ln -sf {secret} out; ln -sfn / top")
    with pytest.raises(NotFoundException):
        shared.files.read("out")
    assert not shared.files.exists(f"top{secret}")


def test_proc_files_without_a_size_are_read(shared: Sandbox) -> None:
    assert "Linux" in shared.files.read("/proc/version")


def test_metadata(shared: Sandbox) -> None:
    info = shared.files.write("tagged", "x", metadata={"Colour": "red", "n": "1"})
    assert info.metadata == {"colour": "red", "n": "1"}
    assert shared.files.get_info("tagged").metadata == {"colour": "red", "n": "1"}
    shared.files.write("tagged", "y", metadata={"n": "2"})
    assert shared.files.get_info("tagged").metadata == {"n": "2"}


def test_info(shared: Sandbox) -> None:
    shared.files.write("known", "12345")
    shared.commands.run("chmod 4751 known; ln -sf known alias; ln -sf nope broken")
    info = shared.files.get_info("known")
    assert (info.name, info.type, info.size) == ("known", FileType.FILE, 5)
    assert (info.owner, info.group, info.permissions) == ("user", "user", "urwxr-x--x")
    assert abs(info.modified_time - datetime.now(UTC)) < timedelta(seconds=30)
    link = shared.files.get_info("alias")
    assert (link.type, link.symlink_target) == (FileType.SYMLINK, "/home/user/known")
    assert link.permissions == "Lrwxrwxrwx"
    assert shared.files.get_info("broken").name == "broken"
    assert shared.files.get_info("/").type is FileType.DIR
    with pytest.raises(NotFoundException):
        shared.files.get_info("/etc/passwd/x")


def test_list_with_depth(shared: Sandbox) -> None:
    shared.commands.run("mkdir -p tree/one/two; touch tree/f tree/one/g tree/one/two/h")
    assert [entry.path for entry in shared.files.list("tree")] == [
        "/home/user/tree/f",
        "/home/user/tree/one",
    ]
    deep = shared.files.list("tree", depth=2)
    assert [entry.name for entry in deep] == ["f", "one", "g", "two"]
    with pytest.raises(InvalidArgumentException, match="not a directory"):
        shared.files.list("tree/f")
    with pytest.raises(NotFoundException):
        shared.files.list("nope")


def test_list_of_thousands(shared: Sandbox) -> None:
    shared.commands.run("mkdir -p thousands; cd thousands; seq 1 3000 | xargs touch")
    assert len(shared.files.list("thousands")) == 3000


def test_make_rename_exists_remove(shared: Sandbox) -> None:
    assert shared.files.make_dir("made/deep") is True
    assert shared.files.make_dir("made/deep") is False
    shared.files.write("made/deep/f", "x")
    moved = shared.files.rename("made", "new/place")
    assert moved.path == "/home/user/new/place"
    assert shared.files.exists("new/place/deep/f")
    assert not shared.files.exists("made")
    shared.files.remove("new")
    assert not shared.files.exists("new")
    shared.files.remove("new")
    with pytest.raises(NotFoundException):
        shared.files.rename("made", "other")


def test_signed_urls(runtime: Runtime, shared: Sandbox) -> None:
    shared.files.write("signed.txt", "by url")
    url = shared.download_url("signed.txt", user="user")
    assert fetch("GET", url, None, {}).body == b"by url"
    put = fetch("POST", shared.upload_url("up.bin", user="user"), b"\x00\x01", OCTETS)
    assert put.status == 200
    assert shared.files.read("up.bin", format="bytes") == b"\x00\x01"
    assert fetch("GET", url.replace("signed.txt", "other.txt"), None, {}).status == 401
    old = shared.download_url("signed.txt", user="user", use_signature_expiration=-9)
    refused = fetch("GET", old, None, {})
    assert (refused.status, "expired" in refused.json["message"]) == (401, True)


OCTETS = {"Content-Type": "application/octet-stream"}


def test_ranges(runtime: Runtime, shared: Sandbox) -> None:
    shared.files.write("digits", "0123456789")

    def ranged(value: str):  # type: ignore[no-untyped-def]
        url = shared.download_url("digits", user="user")
        return fetch("GET", url, None, {"Range": value})

    assert ranged("bytes=2-4").body == b"234"
    assert ranged("bytes=2-4").headers["content-range"] == "bytes 2-4/10"
    assert (ranged("bytes=-3").status, ranged("bytes=-3").body) == (206, b"789")
    assert ranged("bytes=8-").body == b"89"
    assert ranged("bytes=10-").status == 416
    assert ranged("bytes=junk").body == b"0123456789"


def test_upload_of_what_is_not_a_form_is_refused(
    runtime: Runtime, shared: Sandbox
) -> None:
    url = shared.upload_url("x", user="user")
    assert fetch("POST", url, b"x", {"Content-Type": "text/plain"}).status == 400
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    cut = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf'
    assert fetch("POST", url, cut, form).json["message"] == "the form ends early"
    whole = cut + b"\r\n--b--\r\n"
    assert fetch("POST", url, whole, form).status == 200
    assert shared.files.read("x") == "half"
