"""Connecting to a sandbox by its id: one's own, the backend's, nobody else's."""

from collections.abc import Iterator
from datetime import timedelta

import e2b
import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from sandboxes import actions, connecting, errors, gateway, reaper
from sandboxes.models import Sandbox

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def admin(house):
    """An administrator of the whole house."""
    house.alice.is_superuser = True
    house.alice.save()
    return house.alice


@pytest.fixture
def machine(backend) -> Iterator[e2b.Sandbox]:
    """One that was made beside the product, with the same key."""
    made = e2b.Sandbox.create(timeout=300, metadata={"made": "aside"}, **backend.sdk)
    yield made
    made.kill()


def test_what_one_sees_is_opened(house, sandbox) -> None:
    for text in (sandbox.sandbox_id, f" {sandbox.code} "):
        assert connecting.connect(house.victor, house.team, text) == sandbox


def test_an_administrator_takes_what_nobody_here_knows(admin, house, machine) -> None:
    machine.files.write("/tmp/mark", "kept")
    end_at = machine.get_info().end_at
    row = connecting.connect(admin, house.team, machine.sandbox_id)
    assert row.metadata == {"made": "aside"}
    assert gateway.run(row, "cat /tmp/mark").stdout == "kept"
    assert machine.get_info().end_at == end_at
    assert connecting.connect(admin, house.team, machine.sandbox_id) == row
    actions.dispose(admin, row)
    assert not machine.is_running()


def test_nobody_else_may(house, machine) -> None:
    for person in (house.bob, house.charlie):
        with pytest.raises(errors.NotFound):
            connecting.connect(person, house.team, machine.sandbox_id)
    assert not Sandbox.objects.exists()


def test_somebody_elses_is_not_found(admin, house, sandbox) -> None:
    for person in (house.charlie, admin):
        person.memberships.filter(team=house.team).delete()
        with pytest.raises(errors.NotFound):
            connecting.connect(person, house.team, sandbox.sandbox_id)


def test_one_of_another_installation_is_not_found(admin, house, backend) -> None:
    other = {gateway.INSTANCE_KEY: "another"}
    made = e2b.Sandbox.create(timeout=60, metadata=other, **backend.sdk)
    with pytest.raises(errors.NotFound):
        connecting.connect(admin, house.team, made.sandbox_id)
    made.kill()


def test_a_full_quota_takes_nothing(admin, house, machine, settings) -> None:
    settings.MAX_RUNNING_SANDBOXES = 0
    with pytest.raises(Exception, match="running sandboxes"):
        connecting.connect(admin, house.team, machine.sandbox_id)
    assert not Sandbox.objects.exists()


@pytest.mark.parametrize("text", ["", " ", "x" * 81, "../../etc", "i?x=1", "é"])
def test_what_is_no_id_is_said(admin, house, backend, text: str) -> None:
    with pytest.raises((errors.Invalid, errors.NotFound)):
        connecting.connect(admin, house.team, text)


def test_the_form_leads_there(house, sandbox) -> None:
    client = Client()
    client.force_login(house.bob)
    at = reverse("sandboxes:connect")
    data = {"sandbox_id": sandbox.sandbox_id, "team": house.team.slug}
    answer = client.post(at, data)
    assert answer["Location"] == reverse("sandboxes:detail", args=[sandbox.code])
    assert client.post(at, data | {"sandbox_id": "nothing"}).status_code == 404
    assert client.get(at).status_code in (404, 405)


def test_one_of_ours_without_a_row_is_taken_for_good(
    admin, house, backend, monkeypatch
) -> None:
    """As after a restored database: the reaper must know it from then on."""
    marks = {gateway.INSTANCE_KEY: settings.INSTANCE_ID, gateway.OP_KEY: "a" * 32}
    made = e2b.Sandbox.create(timeout=300, metadata=marks, **backend.sdk)
    monkeypatch.setattr(reaper, "ORPHAN_AGE", timedelta(0))
    row = connecting.connect(admin, house.team, made.sandbox_id)
    for _ in range(3):
        reaper.run_once()
    row.refresh_from_db()
    assert row.is_running
    assert made.is_running()
    actions.dispose(admin, row)


def test_one_that_another_row_waits_for_is_not_found(admin, house, backend) -> None:
    """Its answer is still on the way: the row has no id yet, but its op id."""
    waiting = house.team.sandboxes.create(
        name="x", backend="local", request_key="x", state="creating"
    )
    marks = {gateway.INSTANCE_KEY: settings.INSTANCE_ID, gateway.OP_KEY: waiting.op_id}
    made = e2b.Sandbox.create(timeout=60, metadata=marks, **backend.sdk)
    with pytest.raises(errors.NotFound):
        connecting.connect(admin, house.team, made.sandbox_id)
    made.kill()
