"""Backends as rows: who may use which, and what a change of one must not break."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import e2b
import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from kode_web.teams import secrets
from sandboxes import actions, connecting, errors, gateway, reaper
from sandboxes.actions import CreateRequest
from sandboxes.models import BackendRow, Sandbox
from tests.conftest import until_running
from tests.local.server import Runtime

pytestmark = pytest.mark.django_db(transaction=True)


def row_at(runtime: Runtime, name: str, **fields: Any) -> BackendRow:
    """A self-hosted backend by its URLs."""
    urls = {"api_url": runtime.api_url, "sandbox_url": runtime.sandbox_url}
    row = BackendRow(name=name, title=name.title(), **urls, **fields)
    row.api_key = runtime.api_key
    row.full_clean()
    row.save()
    return row


@pytest.fixture
def other(backend) -> BackendRow:
    """A second backend for everybody, beside that of the settings."""
    return row_at(backend, "other")


@pytest.fixture
def own(house, backend) -> BackendRow:
    """One of the house alone."""
    return row_at(backend, "own", team=house.team)


@pytest.fixture
def machine(backend) -> Iterator[e2b.Sandbox]:
    """One that was made beside the product, with the same key."""
    made = e2b.Sandbox.create(timeout=300, **backend.sdk)
    yield made
    made.kill()


def create(user, team, name: str) -> Sandbox:
    request = CreateRequest(backend=name)
    return until_running(actions.create(user, team, request, key=f"of {name}"))


def test_each_sandbox_lives_at_its_own_backend(house, other) -> None:
    rows = [create(house.bob, house.team, name) for name in ("other", "local")]
    for row in rows:
        assert gateway.run(row, "echo $((6 * 7))").stdout == "42\n"
    assert [row.backend for row in rows] == ["other", "local"]
    for row in rows:
        actions.dispose(house.bob, row)


def test_without_rows_all_is_as_the_settings_say(house, backend) -> None:
    assert list(gateway.backends()) == ["local"]
    assert gateway.choose(house.team).name == "local"


def test_two_backends_of_one_account_kill_nothing_of_each_other(
    house, other, monkeypatch
) -> None:
    monkeypatch.setattr(reaper, "ORPHAN_AGE", timedelta(0))
    rows = [create(house.bob, house.team, name) for name in ("other", "local")]
    for _ in range(3):
        reaper.run_once()
    for row in rows:
        row.refresh_from_db()
        assert gateway.info(row).state == row.state == "running"
        actions.dispose(house.bob, row)


def test_another_teams_backend_is_as_if_it_were_not_there(house, own) -> None:
    team = house.charlie.own_team
    assert "own" not in gateway.backends_of(team)
    answers = []
    for name in ("own", "nothing"):
        with pytest.raises(errors.Invalid) as found:
            actions.create(house.charlie, team, CreateRequest(backend=name), key="x")
        answers.append(str(found.value))
    assert answers[0] == answers[1]
    assert not Sandbox.objects.exists()


def test_the_first_usable_one_serves_without_a_default(house, own, settings) -> None:
    settings.RUNTIME_URL = ""
    assert gateway.choose(house.team).name == "own"
    with pytest.raises(errors.Unreachable):
        gateway.choose(house.charlie.own_team)


def test_one_that_is_off_goes_on_with_what_it_has(house, other) -> None:
    row = create(house.bob, house.team, "other")
    other.is_enabled = False
    other.save()
    with pytest.raises(errors.NotReady, match="no new sandboxes"):
        actions.create(house.bob, house.team, CreateRequest(backend="other"), key="2")
    gateway.kill(row)
    for _ in range(2):
        reaper.run_once()
    row.refresh_from_db()
    assert row.state == "gone"


def test_a_change_is_seen_without_a_restart(house, other) -> None:
    assert "other" in gateway.backends_of(house.team)
    # Past the row's own save, as another process does it.
    BackendRow.objects.update(is_enabled=False)
    deadline = time.monotonic() + 30
    while "other" in gateway.backends_of(house.team):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_in_use_is_not_deleted(house, other) -> None:
    row = create(house.bob, house.team, "other")
    with pytest.raises(errors.NotReady, match=row.name):
        other.delete()
    actions.dispose(house.bob, row)
    other.delete()
    assert "other" not in gateway.backends()


@pytest.mark.parametrize(
    ("state", "end"), [("creating", "failed"), ("killing", "gone")]
)
def test_what_waits_for_a_backend_that_is_gone_is_freed(
    house, backend, state: str, end: str
) -> None:
    old = timezone.now() - 2 * reaper.GRACE
    fields = {"backend": "gone", "state": state, "created_at": old}
    lost = house.team.sandboxes.create(name="x", request_key="x", **fields)
    kept = house.team.sandboxes.create(
        name="y", request_key="y", sandbox_id="ikept", **fields
    )
    reaper.run_once()
    for row, wanted in ((lost, end), (kept, state)):
        row.refresh_from_db()
        assert row.state == wanted


def test_a_key_is_encrypted_and_shown_nowhere(other, backend) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_key FROM sandboxes_backendrow")
        stored = cursor.fetchone()[0]
    assert backend.api_key not in stored
    assert backend.api_key in secrets.decrypt(stored)
    assert backend.api_key not in repr(gateway.backend("other"))
    assert other.key_hint == f"…{backend.api_key[-4:]}"


def test_a_key_that_cannot_be_read_hides_its_backend_alone(
    house, other, own, settings
) -> None:
    BackendRow.objects.filter(name="other").update(title="Broken")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE sandboxes_backendrow SET api_key='nonsense' WHERE name='other'"
        )
    gateway.forget_rows()
    assert list(gateway.backends_of(house.team)) == ["local", "own"]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "local", "domain": "e2b.example.org"},
        {"name": "e2b", "domain": "e2b.example.org"},
        {"name": "team-7", "domain": "e2b.example.org"},
        {"name": "Upper", "domain": "e2b.example.org"},
        {"domain": ""},
        {"domain": "https://e2b.example.org"},
        {"domain": "a/b"},
        {"domain": "", "api_url": "https://api.example.org"},
        {"api_url": "http://api.example.org"},
        {"api_url": "https://user:pass@api.example.org"},
        {"api_url": "https://"},
        {"api_url": "ftp://127.0.0.1"},
        {"api_url": "https://a.example.org/?x=1"},
        {"api_url": "https://[::1"},
        {"sandbox_url": "http://10.0.0.1:3000"},
        {"sandbox_url": "http://127.0.0.1.example.org"},
    ],
)
def test_what_cannot_be_a_backend_is_said(house, fields: dict[str, str]) -> None:
    usual = {"name": "good", "title": "Good", "domain": "e2b.example.org"}
    with pytest.raises(ValidationError):
        BackendRow(**usual | fields).full_clean()
    BackendRow(**usual, api_url="http://127.0.0.1:3000/").full_clean()


def test_the_cloud_needs_no_address(house) -> None:
    row = BackendRow(name="cloud", title="Cloud", kind=BackendRow.Kind.E2B)
    row.full_clean()
    assert gateway.Backend.of(row).options == {
        "domain": "e2b.app",
        "api_url": "https://api.e2b.app",
    }


def test_a_member_takes_what_the_teams_own_account_has(house, own, machine) -> None:
    row = connecting.connect(house.bob, house.team, machine.sandbox_id)
    assert (row.team, row.owner, row.backend) == (house.team, house.bob, "own")
    assert gateway.run(row, "echo here").stdout == "here\n"
    assert connecting.connect(house.alice, house.team, machine.sandbox_id) == row


@pytest.mark.parametrize("name", ["victor", "charlie"])
def test_nobody_else_takes_it(house, own, machine, name: str) -> None:
    person = getattr(house, name)
    for team in (house.team, person.own_team):
        with pytest.raises(errors.NotFound):
            connecting.connect(person, team, machine.sandbox_id)
    assert not Sandbox.objects.exists()


def test_a_sandbox_of_another_team_is_not_taken_through_it(house, backend) -> None:
    """Even where the account is the same: the answer is that of a missing one."""
    row_at(backend, "own", team=house.charlie.own_team)
    theirs = create(house.bob, house.team, "local")
    answers = []
    for sandbox_id in (theirs.sandbox_id, "imissing000000000000"):
        with pytest.raises(errors.NotFound) as found:
            connecting.connect(house.charlie, house.charlie.own_team, sandbox_id)
        answers.append(str(found.value))
    assert answers[0] == answers[1]
    actions.dispose(house.bob, theirs)


def test_a_silent_account_is_not_a_missing_sandbox(house, own) -> None:
    own.api_url = "http://127.0.0.1:9"
    own.save()
    with pytest.raises(errors.Unreachable):
        connecting.connect(house.bob, house.team, "imissing000000000000")
    gateway.breaker("own").note(failed=False)


def test_the_form_offers_what_the_team_may_use(house, own) -> None:
    client = Client()
    client.force_login(house.bob)
    at = reverse("sandboxes:new")
    assert 'value="own"' in client.get(at, {"team": "house"}).text
    assert 'value="own"' not in client.get(at).text


def test_the_list_is_filtered_by_backend(house, other) -> None:
    client = Client()
    client.force_login(house.bob)
    for name in ("other", "local"):
        house.team.sandboxes.create(name=f"at-{name}", backend=name, request_key=name)
    at = reverse("sandboxes:list")
    part = client.get(at, {"backend": "other"}, headers={"HX-Request": "true"}).text
    assert "at-other" in part
    assert "at-local" not in part
    html = client.get(at, {"backend": "other"}).text
    assert '<option value="other" selected>Other</option>' in html
    Sandbox.objects.all().delete()
    other.delete()
    assert 'name="backend"' not in client.get(at).text


def test_what_is_said_of_the_house_names_no_teams_backend(house, own) -> None:
    assert set(Client().get("/readyz").json()["backends"]) == {"local"}


def test_two_silent_backends_keep_no_page_waiting(house, plane) -> None:
    """They are asked at once: the page waits for one answer, not for three."""
    urls = {"api_url": plane.url, "sandbox_url": plane.url, "api_key": "e2b_some_key"}
    for name in ("one", "two"):
        BackendRow.objects.create(name=name, title=name, **urls)
    plane.answer = "hang"
    house.alice.is_superuser = True
    house.alice.save()
    client = Client()
    client.force_login(house.alice)
    for at in ("sandboxes:backends", "sandboxes:new", "templates"):
        begun = time.monotonic()
        assert client.get(reverse(at)).status_code == 200
        assert time.monotonic() - begun < 5
    plane.closing.set()


def test_what_a_local_pause_does_not_keep_is_said_there(house, other) -> None:
    client = Client()
    client.force_login(house.bob)
    words = "a reboot of that one keeps the files"
    said = {}
    for kind in (BackendRow.Kind.LOCAL, BackendRow.Kind.CLUSTER):
        BackendRow.objects.update(kind=kind)
        gateway.forget_rows()
        row = house.team.sandboxes.create(
            name="x", backend="other", request_key=kind, state="paused"
        )
        at = reverse("sandboxes:detail", args=[row.code])
        said[kind] = words in client.get(at).text
    assert said == {"local": True, "cluster": False}
