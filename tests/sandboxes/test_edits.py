"""Files of a real sandbox, changed by people: nothing is lost, nothing guessed."""

import base64

import pytest
from django.test import Client
from django.urls import reverse

from sandboxes import edits, errors, files, gateway
from sandboxes.edits import Conflict

pytestmark = pytest.mark.django_db(transaction=True)
WILD = "$(touch x) é '\" &?#.txt"


def put(sandbox, path: str, data: bytes) -> None:
    """Write bytes as the sandbox's own user."""
    code = base64.b64encode(data).decode()
    gateway.run(sandbox, f"echo {code} | base64 -d > {path}")


def test_an_edit_keeps_the_files_own_line_ends(house, sandbox) -> None:
    put(sandbox, "/tmp/a.txt", b"one\r\ntwo\r\n")
    text = edits.read(sandbox, "/tmp/a.txt")
    assert text.text == "one\ntwo\n"
    edits.save(house.bob, sandbox, text.path, "one\r\nthree", text.version)
    assert files.read(sandbox, "/tmp/a.txt") == b"one\r\nthree"


def test_mixed_line_ends_are_told(sandbox) -> None:
    put(sandbox, "/tmp/a.txt", b"one\r\ntwo\n")
    assert edits.read(sandbox, "/tmp/a.txt").is_mixed


def test_who_edits_what_changed_meanwhile_is_asked(house, sandbox) -> None:
    put(sandbox, "/tmp/a.txt", b"one\n")
    mine = edits.read(sandbox, "/tmp/a.txt")
    put(sandbox, "/tmp/a.txt", b"theirs\n")
    with pytest.raises(Conflict) as caught:
        edits.save(house.bob, sandbox, mine.path, "mine\n", mine.version)
    assert caught.value.theirs.text == "theirs\n"
    assert files.read(sandbox, "/tmp/a.txt") == b"theirs\n"
    version = caught.value.theirs.version
    edits.save(house.bob, sandbox, mine.path, "mine\n", version)
    assert files.read(sandbox, "/tmp/a.txt") == b"mine\n"


def test_a_new_file_takes_nobodys_place(house, sandbox) -> None:
    edits.save(house.bob, sandbox, f"/tmp/{WILD}", "new", "")
    assert files.read(sandbox, f"/tmp/{WILD}") == b"new"
    with pytest.raises(Conflict):
        edits.save(house.bob, sandbox, f"/tmp/{WILD}", "newer", "")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\0b"])
def test_what_is_no_text_is_not_edited(sandbox, data: bytes) -> None:
    put(sandbox, "/tmp/b", data)
    with pytest.raises(errors.Invalid):
        edits.read(sandbox, "/tmp/b")


def test_a_large_file_is_not_edited(sandbox) -> None:
    size = edits.MAX_EDIT_BYTES + 1
    gateway.run(sandbox, f"head -c {size} /dev/zero | tr '\\0' x > /tmp/b")
    with pytest.raises(errors.Invalid):
        edits.read(sandbox, "/tmp/b")


def test_a_pipe_and_a_folder_are_not_edited(sandbox) -> None:
    gateway.run(sandbox, "mkfifo /tmp/pipe")
    for path in ("/tmp/pipe", "/tmp"):
        with pytest.raises(errors.Invalid):
            edits.read(sandbox, path)


def test_folders_are_made_moved_and_deleted(house, sandbox) -> None:
    path = edits.make_folder(house.bob, sandbox, "/tmp", "one")
    put(sandbox, "/tmp/one/a", b"kept")
    with pytest.raises(errors.NotReady):
        edits.make_folder(house.bob, sandbox, "/tmp", "one")
    assert edits.move(house.bob, sandbox, path, "two") == "/tmp/two"
    wild = edits.move(house.bob, sandbox, "/tmp/two/a", f"/tmp/{WILD}")
    assert wild == f"/tmp/{WILD}"
    assert files.read(sandbox, f"/tmp/{WILD}") == b"kept"
    assert edits.delete(house.bob, sandbox, "/tmp/two") == "/tmp"
    with pytest.raises(errors.NotFound):
        files.stat(sandbox, "/tmp/two")


def test_nothing_is_moved_over_something(house, sandbox) -> None:
    put(sandbox, "/tmp/a", b"a")
    put(sandbox, "/tmp/b", b"b")
    with pytest.raises(errors.NotReady):
        edits.move(house.bob, sandbox, "/tmp/a", "b")
    assert files.read(sandbox, "/tmp/b") == b"b"


def test_moves_that_make_no_sense_are_refused(house, sandbox) -> None:
    gateway.run(sandbox, "mkdir -p /tmp/one/two")
    for path, to in (
        ("/tmp/one", "/tmp/one/two/three"),
        ("/", "x"),
        ("/tmp/one", " / "),
    ):
        with pytest.raises(errors.Invalid):
            edits.move(house.bob, sandbox, path, to)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "é" * 128])
def test_names_that_are_none_are_refused(house, sandbox, name: str) -> None:
    with pytest.raises(errors.Invalid):
        edits.make_folder(house.bob, sandbox, "/tmp", name)


@pytest.mark.parametrize("path", ["/", "/home/user", "/home/user/../user/"])
def test_the_home_is_not_deleted(house, sandbox, path: str) -> None:
    with pytest.raises(errors.Invalid):
        edits.delete(house.bob, sandbox, path)


def signed_in(person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def test_pages_lead_from_one_to_the_next(house, sandbox) -> None:
    client = signed_in(house.bob)
    change = reverse("sandboxes:change", args=[sandbox.code])
    new = client.post(change, {"action": "file", "path": "/tmp", "name": WILD})
    editor = client.get(new["Location"])
    assert b"Create" in editor.content
    client.post(new["Location"], {"text": "<b>hi</b>", "version": ""})
    at = new["Location"].replace("&new=1", "")
    page = client.get(at)
    assert b"&lt;b&gt;hi&lt;/b&gt;" in page.content
    version = page.context["text"].version
    edits.save(house.alice, sandbox, f"/tmp/{WILD}", "theirs", version)
    answer = client.post(at, {"text": "mine", "version": version})
    assert answer.status_code == 409
    assert b">\nmine</textarea>" in answer.content
    assert b">\ntheirs</textarea>" in answer.content


def test_only_who_may_type_changes_files(house, sandbox) -> None:
    put(sandbox, "/tmp/a", b"kept")
    edit = reverse("sandboxes:edit", args=[sandbox.code]) + "?path=/tmp/a"
    change = reverse("sandboxes:change", args=[sandbox.code])
    for person, status in ((house.victor, 403), (house.charlie, 404)):
        client = signed_in(person)
        assert client.get(edit).status_code == status
        assert client.post(edit, {"text": "x"}).status_code == status
        data = {"action": "delete", "path": "/tmp/a"}
        assert client.post(change, data).status_code == status
    assert files.read(sandbox, "/tmp/a") == b"kept"
    at = reverse("sandboxes:file", args=[sandbox.code, "tmp/a"])
    assert b"Edit" not in signed_in(house.victor).get(at).content
