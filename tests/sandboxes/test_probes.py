"""The probe of a backend: real calls, each with its outcome, and nothing left."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sandboxes import gateway, probe_steps, probes, reaper
from sandboxes.models import Probe
from sandboxes.probe_steps import STEPS
from tests.local.server import wait_for

from .fake_plane import Plane
from .test_backends import row_at

pytestmark = pytest.mark.django_db(transaction=True)


def until_done(row: Probe) -> Probe:
    """Wait until it ends."""

    def ended() -> bool:
        row.refresh_from_db()
        return row.ended_at is not None

    wait_for(ended, 180)
    return row


def outcomes(row: Probe) -> dict[str, str]:
    return {step["key"]: step["state"] for step in row.steps}


def browser(person) -> Client:
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def chief(house):
    """An administrator of the whole house."""
    house.alice.is_superuser = True
    house.alice.save()
    return house.alice


def test_every_call_works_with_a_real_backend(house, backend) -> None:
    row_at(backend, "other")
    before = backend.call("GET", "/v2/sandboxes").json
    row = until_done(probes.start(house.alice, "other"))
    wrong = [step for step in row.steps if step["state"] != "ok"]
    assert (wrong, row.error) == ([], "")
    assert list(outcomes(row)) == [step.key for step in STEPS]
    assert all(step["ms"] >= 0 for step in row.steps)
    assert backend.call("GET", "/v2/sandboxes").json == before
    assert backend.call("GET", "/snapshots").json == []


def test_what_breaks_in_the_middle_leaves_nothing(house, backend, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise gateway.translate(ConnectionResetError("on purpose"))

    monkeypatch.setattr(gateway, "pause", broken)
    monkeypatch.setattr(gateway, "metrics", broken)
    row = until_done(probes.start(house.alice, "local"))
    found = outcomes(row)
    assert (found["metrics"], found["pause"]) == ("failed", "failed")
    assert (found["resume"], found["kill"]) == ("skipped", "ok")
    bench = probe_steps.Bench.at("local", "e" * 32)
    probe_steps._create(bench)
    probe_steps._snapshot(bench)
    assert probe_steps.clean_up(bench) == ""
    assert gateway.machines("local") == []
    assert backend.call("GET", "/snapshots").json == []


def test_a_lost_answer_to_create_is_found_and_ended(house, plane: Plane) -> None:
    bench = probe_steps.Bench.at("local", "e" * 32)
    plane.add("ilost", kode_op="e" * 32)
    plane.add("iother", kode_op="f" * 32)
    bench.is_asked = True
    assert probe_steps.clean_up(bench) == ""
    assert list(plane.machines) == ["iother"]


def test_a_machine_whose_probe_was_killed_is_ended(house, backend, monkeypatch) -> None:
    row_at(backend, "other")
    bench = probe_steps.Bench.at("other", "d" * 32)
    probe_steps._create(bench)
    monkeypatch.setattr(reaper, "ORPHAN_AGE", timedelta(0))
    for _ in range(2):
        assert gateway.machines("other")
        reaper.run_once()
    assert gateway.machines("other") == []


def test_what_a_backend_does_not_have_is_said(house, plane: Plane) -> None:
    row = until_done(probes.start(house.alice, "local"))
    found = outcomes(row)
    assert (found["list"], found["templates"]) == ("ok", "unsupported")
    assert found["kill"] == "ok"
    assert "List templates" in probes.lacks("local")
    assert plane.machines == {}


def test_what_may_be_left_is_said(house, plane: Plane, monkeypatch) -> None:
    def silent(*_: object) -> None:
        plane.answer = 500
        raise gateway.translate(ConnectionResetError("on purpose"))

    monkeypatch.setattr(gateway, "create", silent)
    row = until_done(probes.start(house.alice, "local"))
    assert outcomes(row)["create"] == "failed"
    assert "may be left there" in row.error


def test_what_a_probe_found_missing_is_said_of_a_sandbox(house, plane: Plane) -> None:
    until_done(probes.start(house.alice, "local"))
    row = house.team.sandboxes.create(name="x", backend="local", request_key="x")
    html = browser(house.bob).get(reverse("sandboxes:settings", args=[row.code])).text
    assert "Not at this backend" in html
    assert "List templates" in html


def test_a_refused_key_is_said(house, plane: Plane) -> None:
    plane.answer = 401
    row = until_done(probes.start(house.alice, "local"))
    assert outcomes(row)["list"] == "failed"
    assert "refuses our API key" in row.steps[0]["detail"]
    assert outcomes(row)["exec"] == "skipped"


def test_a_call_that_is_not_built_is_no_failure(house, plane: Plane) -> None:
    plane.answer = 501
    row = until_done(probes.start(house.alice, "local"))
    assert outcomes(row)["list"] == "unsupported"
    assert not gateway.breaker("local").is_open


def test_a_second_click_makes_no_second_probe(house, plane: Plane) -> None:
    plane.answer = "hang"
    first = probes.start(house.alice, "local")
    assert probes.start(house.alice, "local") == first
    plane.closing.set()
    until_done(first)


def test_one_whose_process_died_is_closed(house) -> None:
    old = timezone.now() - 2 * probes.LOST
    row = Probe.objects.create(backend="local", seen_at=old)
    found = probes.last("local")
    assert found == row
    assert "interrupted" in found.error
    Probe.objects.create(backend="local", seen_at=timezone.now() - timedelta(1))


def test_the_page_follows_a_probe(chief, backend) -> None:
    client = browser(chief)
    at = reverse("sandboxes:backend", args=["local"])
    assert "Nobody has tried it yet" in client.get(at).text
    answer = client.post(reverse("sandboxes:probe", args=["local"]))
    assert answer["Location"] == at
    assert "every 1s" in client.get(at, headers={"HX-Request": "true"}).text
    done = until_done(Probe.objects.get())
    assert [step for step in done.steps if step["state"] != "ok"] == []
    html = client.get(at, headers={"HX-Request": "true"}).text
    assert html.count('data-result="ok"') == len(STEPS)
    assert "every 1s" not in html
    assert f"{len(STEPS)} work" in client.get(reverse("sandboxes:backends")).text


@pytest.mark.parametrize("name", ["bob", "victor", "charlie"])
def test_who_keeps_none_finds_nothing(house, backend, name: str) -> None:
    row_at(backend, "own", team=house.team)
    client = browser(getattr(house, name))
    for one in ("own", "local", "nothing"):
        at = reverse("sandboxes:backend", args=[one])
        probe = reverse("sandboxes:probe", args=[one])
        assert client.get(at).status_code == 404
        assert client.post(probe).status_code == 404
    assert client.get(reverse("sandboxes:backends")).status_code == 404
    assert not Probe.objects.exists()


def test_a_teams_administrator_keeps_its_own_alone(house, backend) -> None:
    row_at(backend, "own", team=house.team)
    row_at(backend, "theirs", team=house.charlie.own_team)
    client = browser(house.alice)
    html = client.get(reverse("sandboxes:backends")).text
    assert reverse("sandboxes:backend", args=["own"]) in html
    for one in ("local", "theirs"):
        assert reverse("sandboxes:backend", args=[one]) not in html
        assert client.get(reverse("sandboxes:backend", args=[one])).status_code == 404
    assert client.get(reverse("sandboxes:backend", args=["own"])).status_code == 200
    assert backend.api_key not in html
    assert client.get(reverse("sandboxes:probe", args=["own"])).status_code == 405


def test_a_sick_backend_keeps_no_page_waiting(chief, plane: Plane) -> None:
    plane.answer = "hang"
    begun = timezone.now()
    html = browser(chief).get(reverse("sandboxes:backend", args=["local"])).text
    plane.closing.set()
    assert timezone.now() - begun < timedelta(seconds=9)
    assert 'data-state="error"' in html or 'data-state="working"' in html
