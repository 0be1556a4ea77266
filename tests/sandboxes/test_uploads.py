"""Uploads in pieces: they go on where they stopped, and nothing is written over."""

import base64

import pytest
from django.test import Client
from django.urls import reverse

from kode_web.teams.models import User
from sandboxes import files, gateway, uploads

pytestmark = pytest.mark.django_db(transaction=True)
DATA = bytes(range(256)) * 4096  # 1 MiB


class Sender:
    """A tus client, one call at a time."""

    def __init__(self, user: User, sandbox) -> None:
        self.client = Client(headers={"accept": "application/json"})
        self.client.force_login(user)
        self.sandbox = sandbox

    def begin(self, name: str, size: int, conflict: str = "", folder: str = "/tmp/up"):
        pairs = {"filename": name, "conflict": conflict}
        told = ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}"
            for key, value in pairs.items()
        )
        return self.client.post(
            reverse("sandboxes:uploads", args=[self.sandbox.code])
            + f"?folder={folder}",
            headers={"upload-length": str(size), "upload-metadata": told},
        )

    def piece(self, address: str, at: int, data: bytes):
        return self.client.patch(
            address,
            data,
            content_type="application/offset+octet-stream",
            headers={"upload-offset": str(at)},
        )

    def there(self, address: str) -> int:
        answer = self.client.head(address)
        assert answer.status_code == 200
        return int(answer["Upload-Offset"])


@pytest.fixture
def sender(house, sandbox) -> Sender:
    return Sender(house.bob, sandbox)


def listed(sandbox, folder: str = "/tmp/up") -> list[str]:
    return [entry.name for entry in files.list_dir(sandbox, folder)[0]]


def test_a_file_comes_in_pieces_and_is_the_users(sender, sandbox) -> None:
    answer = sender.begin("a b.bin", len(DATA))
    assert answer.status_code == 201
    address = answer["Location"]
    for at in range(0, len(DATA), 400_000):
        sent = sender.piece(address, at, DATA[at : at + 400_000])
        assert sent.status_code == 204
    assert files.read(sandbox, "/tmp/up/a b.bin") == DATA
    owner = gateway.run(sandbox, "stat -c '%U %a' '/tmp/up/a b.bin'")
    assert owner.stdout == "user 644\n"
    assert sandbox.events.filter(kind="file.uploaded").count() == 1


def test_it_goes_on_where_it_stopped(sender, sandbox) -> None:
    address = sender.begin("f", len(DATA))["Location"]
    sender.piece(address, 0, DATA[:1000])
    assert sender.there(address) == 1000
    assert sender.piece(address, 1000, DATA[1000:])["Upload-Offset"] == str(len(DATA))
    assert files.read(sandbox, "/tmp/up/f") == DATA


def test_a_piece_whose_answer_was_lost_is_added_once(sender, sandbox) -> None:
    address = sender.begin("f", 10)["Location"]
    for _ in range(2):
        assert sender.piece(address, 0, b"01234")["Upload-Offset"] == "5"
    for _ in range(2):
        answer = sender.piece(address, 5, b"56789")
    # The end of it was heard of: to send it again finds the file in its place.
    assert answer.status_code in (204, 404)
    assert sender.there(address) == 10
    assert files.read(sandbox, "/tmp/up/f") == b"0123456789"
    assert sandbox.events.filter(kind="file.uploaded").count() == 1


def test_an_end_that_was_cut_off_is_made_up_for(sender, sandbox, monkeypatch) -> None:
    address = sender.begin("f", 4)["Location"]

    def crash(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(uploads, "finish", crash)
        with pytest.raises(SystemExit):
            sender.piece(address, 0, b"full")
    assert sender.there(address) == 4
    assert files.read(sandbox, "/tmp/up/f") == b"full"


def test_a_gap_is_refused(sender) -> None:
    address = sender.begin("f", 10)["Location"]
    assert sender.piece(address, 5, b"56789").status_code == 409
    assert sender.piece(address, 11, b"x").status_code == 409


def test_more_than_was_said_is_refused(sender, sandbox) -> None:
    address = sender.begin("f", 4)["Location"]
    assert sender.piece(address, 0, b"too much").status_code == 400
    assert sender.client.head(address).status_code == 404


def test_a_file_that_is_there_is_not_written_over(sender, sandbox) -> None:
    gateway.run(sandbox, "mkdir -p /tmp/up; echo mine > /tmp/up/f; mkdir /tmp/up/dir")
    answer = sender.begin("f", 3)
    assert (answer.status_code, answer.json()["kind"]) == (409, "Exists")
    assert sender.begin("dir", 3).status_code == 400
    address = sender.begin("f", 3, "both")["Location"]
    sender.piece(address, 0, b"two")
    assert files.read(sandbox, "/tmp/up/f") == b"mine\n"
    assert files.read(sandbox, "/tmp/up/f (1)") == b"two"
    address = sender.begin("f", 3, "replace")["Location"]
    sender.piece(address, 0, b"new")
    assert files.read(sandbox, "/tmp/up/f") == b"new"


def test_one_that_was_made_meanwhile_is_kept(sender, sandbox) -> None:
    address = sender.begin("f", 3)["Location"]
    gateway.run(sandbox, "mkdir -p /tmp/up; echo theirs > /tmp/up/f")
    answer = sender.piece(address, 0, b"new")
    assert (answer.status_code, answer.json()["kind"]) == (409, "Exists")
    assert files.read(sandbox, "/tmp/up/f") == b"theirs\n"


def test_an_empty_file_and_folders_in_its_name(sender, sandbox) -> None:
    assert sender.begin("deep/er/empty", 0).status_code == 201
    assert files.stat(sandbox, "/tmp/up/deep/er/empty").size_bytes == 0


@pytest.mark.parametrize("name", ["", "..", "../x", "a/../../x", "/", "a\0b"])
def test_a_name_stays_in_the_folder(sender, name: str) -> None:
    assert sender.begin(name, 1).status_code == 400


def test_one_that_is_given_up_leaves_nothing(sender, sandbox) -> None:
    address = sender.begin("f", 10)["Location"]
    sender.piece(address, 0, b"01234")
    assert sender.client.delete(address).status_code == 204
    assert sender.client.head(address).status_code == 404
    left = gateway.run(sandbox, f"ls {uploads.PARTS}", user="root")
    assert left.stdout == ""


def test_a_full_disk_is_said_and_the_rest_is_kept(sender, sandbox) -> None:
    address = sender.begin("f", 10)["Location"]
    sender.piece(address, 0, b"01234")
    forged = "cat() { echo 'cat: write error: No space left on device' >&2; return 1; }"
    gateway.run(sandbox, f"echo {forged!r} > /root/.bash_profile", user="root")
    answer = sender.piece(address, 5, b"56789")
    assert answer.status_code == 413
    assert "disk is full" in answer.json()["error"]
    gateway.run(sandbox, "rm /root/.bash_profile", user="root")
    assert sender.there(address) == 5


def test_a_tool_that_lies_is_an_error_that_is_said(sender, sandbox) -> None:
    address = sender.begin("f", 10)["Location"]
    gateway.run(sandbox, "echo 'stat() { echo x; }' > /root/.bash_profile", user="root")
    assert sender.piece(address, 0, b"01234").status_code == 502
    assert sender.client.head(address).status_code == 502


def test_a_forged_address_and_one_of_another_sandbox_are_nothing(
    sender, sandbox, house
) -> None:
    address = sender.begin("f", 10)["Location"]
    assert sender.client.head(address[:-2] + "x/").status_code == 404
    other = uploads.Upload("0" * 32, "/tmp/f", 3, "", "0" * 16)
    at = reverse("sandboxes:upload", args=[sandbox.code, other.token])
    assert sender.client.head(at).status_code == 404


def test_who_may_not_change_files_may_not_upload(house, sandbox, sender) -> None:
    address = sender.begin("f", 10)["Location"]
    for user, status in ((house.victor, 403), (house.charlie, 404)):
        other = Sender(user, sandbox)
        assert other.begin("f", 10).status_code == status
        assert other.piece(address, 0, b"0").status_code == status
        assert other.client.head(address).status_code == status
        assert other.client.delete(address).status_code == status


def test_a_shell_that_never_ran_has_no_folder(house, sandbox) -> None:
    from sandboxes import shells

    row = shells.create_row(sandbox, house.bob)
    sender = Sender(house.bob, sandbox)
    at = reverse("sandboxes:uploads", args=[sandbox.code])
    answer = sender.client.post(f"{at}?terminal={row.code}")
    assert answer.status_code == 404
    assert "Open another" in answer.json()["error"]
