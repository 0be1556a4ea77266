"""Pages of sandboxes as each person of the house gets them."""

import io
import tarfile
import threading
import uuid
from collections.abc import Iterator
from typing import cast

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import StreamingHttpResponse
from django.test import Client
from django.urls import reverse

from kode_web.teams.models import User
from sandboxes import gateway
from sandboxes.models import Event, Sandbox, State, Terminal
from tests.conftest import House, until_running
from tests.local.server import Runtime

NOBODY_SEES = ("detail", "files", "ports", "activity", "settings", "dispose")
MANAGED = ("pause", "resume", "extend", "dispose")


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def at(name: str, sandbox: Sandbox, *args: str) -> str:
    return reverse(f"sandboxes:{name}", args=[sandbox.code, *args])


def body(response: object) -> bytes:
    return b"".join(cast(Iterator[bytes], cast(StreamingHttpResponse, response)))


@pytest.fixture
def row(house: House) -> Sandbox:
    """A paused sandbox of bob's, with no machine behind it."""
    return Sandbox.objects.create(
        team=house.team,
        owner=house.bob,
        name="<b>box</b>",
        backend="local",
        sandbox_id=uuid.uuid4().hex,
        request_key=uuid.uuid4().hex,
        state=State.PAUSED,
        envs={"TOKEN": "very-secret"},
        metadata={"stage": "test"},
    )


@pytest.mark.parametrize("name", NOBODY_SEES)
def test_a_stranger_finds_nothing(house: House, row: Sandbox, name: str) -> None:
    assert signed_in(house.charlie).get(at(name, row)).status_code == 404
    missing = reverse(f"sandboxes:{name}", args=["0" * 32])
    assert signed_in(house.charlie).get(missing).status_code == 404


@pytest.mark.parametrize("name", NOBODY_SEES)
def test_nobody_signed_in_is_asked_to(row: Sandbox, name: str) -> None:
    response = Client().get(at(name, row))
    assert response.status_code == 302
    assert response["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("name", [*MANAGED, "terminals"])
def test_a_viewer_may_look_only(house: House, row: Sandbox, name: str) -> None:
    assert signed_in(house.victor).get(at("detail", row)).status_code == 200
    assert signed_in(house.victor).post(at(name, row)).status_code == 403
    row.refresh_from_db()
    assert row.state == State.PAUSED


@pytest.mark.parametrize("name", MANAGED)
def test_a_change_needs_a_token(house: House, row: Sandbox, name: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(house.bob)
    assert client.post(at(name, row)).status_code == 403
    row.refresh_from_db()
    assert row.state == State.PAUSED


def test_a_viewer_is_offered_no_change(house: House, row: Sandbox) -> None:
    page = signed_in(house.victor).get(at("detail", row)).content.decode()
    assert "Nothing is lost" in page
    assert at("resume", row) not in page
    assert at("dispose", row) not in page
    page = signed_in(house.bob).get(at("detail", row)).content.decode()
    assert at("resume", row) in page
    assert at("dispose", row) in page


def test_a_page_follows_what_is_under_way(house: House, row: Sandbox) -> None:
    client = signed_in(house.bob)
    url, poll = at("detail", row), 'hx-trigger="every 400ms"'
    assert poll not in client.get(url).content.decode()
    row.state, row.error = State.CREATING, "The backend is busy."
    row.save()
    part = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert part.strip().startswith(f'<div class="whole" id="sandbox-{row.code}"')
    assert poll in part
    assert "Waiting: The backend is busy." in part
    row.state = State.FAILED
    row.save()
    part = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert poll not in part
    assert "It could not be made" in part


def test_an_end_leaves_its_record(house: House, row: Sandbox) -> None:
    row.state, row.error = State.GONE, "Its time was over."
    row.save()
    client = signed_in(house.bob)
    for name in ("detail", "files", "ports"):
        page = client.get(at(name, row)).content.decode()
        assert "Its time was over." in page
        assert at("activity", row) in page
        assert at("resume", row) not in page
    assert client.get(at("activity", row)).status_code == 200
    assert client.post(at("resume", row)).status_code == 410
    assert client.post(at("terminals", row)).status_code == 410


def test_names_are_text(house: House, row: Sandbox) -> None:
    for name in ("detail", "settings", "activity", "dispose"):
        page = signed_in(house.bob).get(at(name, row)).content.decode()
        assert "<b>box</b>" not in page
        assert "&lt;b&gt;box&lt;/b&gt;" in page


def test_settings_name_variables_and_hide_values(house: House, row: Sandbox) -> None:
    page = signed_in(house.bob).get(at("settings", row)).content.decode()
    assert "TOKEN" in page
    assert "very-secret" not in page


def test_rename_is_recorded(house: House, row: Sandbox) -> None:
    response = signed_in(house.bob).post(at("settings", row), {"name": "crate"})
    assert response["Location"] == at("settings", row)
    row.refresh_from_db()
    assert row.name == "crate"
    assert row.metadata == {"stage": "test"}
    event = Event.objects.get(sandbox=row, kind="sandbox.renamed")
    assert event.data == {"old": "<b>box</b>", "to": "crate"}
    page = signed_in(house.bob).get(at("activity", row)).content.decode()
    assert "renamed it" in page


def test_labels_are_changed_and_wrong_ones_are_said(house: House, row: Sandbox) -> None:
    client = signed_in(house.bob)
    client.post(at("settings", row), {"name": "crate", "labels": "stage=live\na = b"})
    row.refresh_from_db()
    assert row.metadata == {"stage": "live", "a": "b"}
    for labels in ("nonsense", "kode_op=x"):
        page = client.post(at("settings", row), {"name": "crate", "labels": labels})
        assert b'class="wrong"' in page.content
    row.refresh_from_db()
    assert row.metadata == {"stage": "live", "a": "b"}


def test_a_link_fills_the_form_in_and_makes_nothing(house: House) -> None:
    query = "?name=demo&timeout_s=1800&internet=&workdir=/srv&nonsense=1"
    page = signed_in(house.bob).get(reverse("sandboxes:new") + query)
    form = page.context["form"]
    assert form["name"].value() == "demo"
    assert form["workdir"].value() == "/srv"
    assert form["timeout_s"].value() == "1800"
    assert not Sandbox.objects.exists()


def test_the_list_is_filtered_by_its_address(house: House, row: Sandbox) -> None:
    client = signed_in(house.alice)
    link = at("detail", row)
    for query, is_there in (
        ("", True),
        ("?show=paused", True),
        ("?show=running", False),
        ("?show=ended", False),
        ("?show=nonsense", True),
        ("?q=BOX", True),
        ("?q=other", False),
        ("?mine=1", False),
    ):
        table = client.get(f"/sandboxes/{query}").content.decode().partition("<main")[2]
        assert (link in table) == is_there, query
    assert link not in signed_in(house.charlie).get("/sandboxes/").content.decode()


def test_htmx_gets_the_table_alone(house: House, row: Sandbox) -> None:
    client = signed_in(house.bob)
    part = client.get("/sandboxes/?show=paused", headers={"HX-Request": "true"})
    text = part.content.decode()
    assert text.strip().startswith('<div id="sandboxes"')
    assert "show=paused" in text
    assert part["Vary"].startswith("HX-Request")


def test_back_goes_to_our_own_pages_alone(house: House, row: Sandbox) -> None:
    client = signed_in(house.alice)
    row.state = State.GONE
    row.save()
    away = client.post(at("dispose", row), {"next": "https://example.test/"})
    assert away["Location"] == at("detail", row)
    home = client.post(at("dispose", row), {"next": "/sandboxes/?show=ended"})
    assert home["Location"] == "/sandboxes/?show=ended"


@pytest.mark.parametrize("port", [80, 49983, 70000])
def test_ports_that_are_never_opened(house: House, row: Sandbox, port: int) -> None:
    url = f"/sandboxes/{row.code}/ports/{port}/open/"
    assert signed_in(house.bob).post(url).status_code == 404


def test_open_leads_to_the_preview_host(house: House, row: Sandbox) -> None:
    url = f"/sandboxes/{row.code}/ports/8000/open/"
    assert signed_in(house.charlie).post(url).status_code == 404
    assert signed_in(house.bob).get(url).status_code == 405
    # Private is its owner's and who manages it; hers it is not, so she is told.
    assert signed_in(house.victor).post(url).status_code == 403
    row.owner = house.bob
    row.save()
    alice = signed_in(house.alice)
    assert b"Go on" in alice.post(url).content
    response = alice.post(url, {"sure": "1"})
    assert response["Location"].startswith(f"http://{row.preview_host(8000)}/")
    assert alice.post(url).status_code == 302
    assert signed_in(house.bob).post(url).status_code == 302


def test_wrong_fields_are_said(house: House) -> None:
    client = signed_in(house.bob)
    fields = {
        "template": "base",
        "timeout_s": "3600",
        "on_timeout": "pause",
        "command_timeout_s": "60",
        "envs": "1BAD=x",
    }
    page = client.post("/sandboxes/new/", fields).content.decode()
    assert "Line 1 is not NAME=value." in page
    assert not Sandbox.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_one_form_makes_one_sandbox(house: House, backend: Runtime) -> None:
    fields = {
        "name": "made",
        "template": "base",
        "timeout_s": "1800",
        "on_timeout": "kill",
        "internet": "yes",
        "command_timeout_s": "60",
        "envs": "COLOUR=blue",
        "metadata": "stage=test",
        "key": "k1",
        "team": "house",
    }
    answers: list[str] = []

    def send() -> None:
        response = signed_in(house.bob).post("/sandboxes/new/", fields)
        answers.append(response["Location"])

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sandbox = Sandbox.objects.get()
    assert set(answers) == {at("detail", sandbox)}
    assert sandbox.team == house.team
    assert sandbox.envs == {"COLOUR": "blue"}
    assert sandbox.metadata == {"stage": "test"}
    until_running(sandbox)
    page = signed_in(house.bob).get(at("detail", sandbox)).content.decode()
    terminal = Terminal.objects.filter(sandbox=sandbox).first()
    assert terminal is not None
    assert f"/ws/sandboxes/{sandbox.code}/terminals/{terminal.code}/" in page
    assert 'data-readonly=""' in page
    page = signed_in(house.victor).get(at("detail", sandbox)).content.decode()
    assert 'data-readonly="yes"' in page
    gateway.kill(sandbox)


@pytest.mark.django_db(transaction=True)
def test_files_are_shown_and_leave_closed(house: House, sandbox: Sandbox) -> None:
    made = gateway.run(
        sandbox,
        "mkdir -p 'a b'; echo '<script>alert(1)</script>' > 'a b/x.html';"
        " printf 'a\\0b' > data.bin; touch 'näme#?%.txt'",
    )
    assert made.exit_code == 0, made.stderr
    client = signed_in(house.victor)
    page = client.get(at("files", sandbox)).content.decode()
    assert "a b/" in page
    assert "n%C3%A4me%23%3F%25.txt" in page
    text = client.get(at("file", sandbox, "home/user/a b/x.html"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text.content.decode()
    for query in ("?download=1", "?raw=1"):
        got = client.get(at("file", sandbox, "home/user/a b/x.html") + query)
        assert body(got) == b"<script>alert(1)</script>\n"
        assert got["Content-Type"] == "application/octet-stream"
        assert got["Content-Disposition"].startswith("attachment")
        assert got["X-Content-Type-Options"] == "nosniff"
        assert got["Content-Security-Policy"].startswith("sandbox")
    binary = client.get(at("file", sandbox, "home/user/data.bin")).content.decode()
    assert "61 00 62" in binary
    odd = client.get(at("file", sandbox, "home/user/näme#?%.txt"))
    assert odd.status_code == 200
    gone = client.get(at("file", sandbox, "home/user/nothing"))
    assert gone.status_code == 404
    assert "This cannot be shown" in gone.content.decode()
    got = client.get(at("files", sandbox) + "?archive=tar")
    with tarfile.open(fileobj=io.BytesIO(body(got))) as archive:
        assert "user/a b/x.html" in archive.getnames()


@pytest.mark.django_db(transaction=True)
def test_files_are_uploaded_by_who_may(house: House, sandbox: Sandbox) -> None:
    url = at("file", sandbox, "home/user")

    def send(user: User, name: str) -> int:
        file = SimpleUploadedFile(name, b"\x00 bytes \xff")
        return signed_in(user).post(url, {"files": file}).status_code

    assert send(house.charlie, "x") == 404
    assert send(house.victor, "x") == 403
    assert send(house.bob, "../../etc/ö #1.bin") == 302
    assert signed_in(house.bob).post(url).status_code == 400
    names = gateway.run(sandbox, "ls -A /home/user; cat '/home/user/ö #1.bin' | wc -c")
    assert "ö #1.bin" in names.stdout
    assert names.stdout.endswith("9\n")
    event = Event.objects.get(sandbox=sandbox, kind="file.uploaded")
    assert event.actor == house.bob


@pytest.mark.django_db(transaction=True)
def test_a_life_by_buttons(house: House, sandbox: Sandbox) -> None:
    client = signed_in(house.bob)
    first = sandbox.ends_at
    assert first is not None
    client.post(at("extend", sandbox))
    sandbox.refresh_from_db()
    assert sandbox.ends_at is not None
    assert (sandbox.ends_at - first).total_seconds() == 1800
    client.post(at("pause", sandbox))
    sandbox.refresh_from_db()
    assert sandbox.state == State.PAUSED
    client.post(at("resume", sandbox))
    sandbox.refresh_from_db()
    assert sandbox.state == State.RUNNING
    assert signed_in(house.victor).post(at("dispose", sandbox)).status_code == 403
    assert client.get(at("dispose", sandbox)).status_code == 200
    assert client.post(at("dispose", sandbox))["Location"] == "/sandboxes/"
    sandbox.refresh_from_db()
    assert sandbox.state in (State.KILLING, State.GONE)


@pytest.mark.django_db(transaction=True)
def test_ports_page_lists_what_listens(house: House, sandbox: Sandbox) -> None:
    gateway.run(sandbox, "nohup python3 -m http.server 8123 >/dev/null 2>&1 & sleep 1")
    address = f"/sandboxes/{sandbox.code}/ports/8123/open/"
    page = signed_in(house.victor).get(at("ports", sandbox)).content.decode()
    assert ":8123" in page
    assert address not in page
    page = signed_in(house.alice).get(at("ports", sandbox)).content.decode()
    assert address in page


@pytest.mark.django_db(transaction=True)
def test_times_and_variables_change_later(house: House, sandbox: Sandbox) -> None:
    client = signed_in(house.bob)
    fields = {"name": "box", "timeout_s": "1800", "command_timeout_s": "90"}
    secret = {"variables": "COLOUR=blue-secret\nSIZE=large"}
    assert client.post(at("settings", sandbox), fields | secret).status_code == 302
    sandbox.refresh_from_db()
    assert (sandbox.timeout_s, sandbox.command_timeout_s) == (1800, 90)
    assert sandbox.envs == {"COLOUR": "blue-secret", "SIZE": "large"}
    page = client.get(at("settings", sandbox)).content.decode()
    assert "COLOUR" in page
    assert "blue-secret" not in page
    for event in sandbox.events.all():
        assert "blue-secret" not in str(event.data)
    assert client.post(at("settings", sandbox), fields).status_code == 302
    sandbox.refresh_from_db()
    assert sandbox.envs["COLOUR"] == "blue-secret"
    wrong = client.post(at("settings", sandbox), fields | {"variables": "1=x"})
    assert "is not NAME=value" in wrong.content.decode()
    assert (
        signed_in(house.victor).post(at("settings", sandbox), fields).status_code == 403
    )
