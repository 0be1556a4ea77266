"""Connecting to a sandbox by its id: one's own, the backend's, nobody else's."""

from collections.abc import Iterator

import e2b
import pytest
from django.test import Client
from django.urls import reverse

from sandboxes import actions, connecting, errors, gateway
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
