"""Records of ended sandboxes stay for as long as their team wants."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sandboxes import retention
from sandboxes.models import Event, Sandbox, Snapshot, State

pytestmark = pytest.mark.django_db(transaction=True)


def ended(house, days: int, state: State = State.GONE) -> Sandbox:
    row = Sandbox.objects.create(
        team=house.team,
        name=f"{days} {state}",
        backend="local",
        request_key=f"{days} {state}",
        state=state,
        ended_at=timezone.now() - timedelta(days=days),
    )
    Event.objects.create(sandbox=row, kind="sandbox.created")
    row.terminals.create(name="Shell 1")
    return row


def choose(user, house, days: str) -> int:
    client = Client()
    client.force_login(user)
    at = reverse("teams:keep", args=[house.team.slug])
    return client.post(at, {"days": days}).status_code


def test_they_stay_until_somebody_decides(house) -> None:
    ended(house, 5000)
    retention.run_once()
    assert Sandbox.objects.count() == 1


def test_what_is_older_goes_with_its_history(house) -> None:
    ended(house, 31)
    young, failed = ended(house, 29), ended(house, 31, State.FAILED)
    running = ended(house, 40, State.RUNNING)
    assert choose(house.alice, house, "30") == 302
    retention.run_once()
    assert set(Sandbox.objects.all()) == {young, running}
    assert Event.objects.filter(sandbox=failed).count() == 0


def test_one_with_a_snapshot_stays(house) -> None:
    row = ended(house, 31)
    Snapshot.objects.create(team=house.team, sandbox=row, name="x", backend="local")
    choose(house.alice, house, "30")
    retention.run_once()
    assert Sandbox.objects.get() == row


def test_who_decides(house) -> None:
    for user, status in ((house.bob, 403), (house.victor, 403), (house.charlie, 404)):
        assert choose(user, house, "7") == status
    assert choose(house.alice, house, "8") == 404
    house.team.refresh_from_db()
    assert house.team.keep_days is None
    assert choose(house.alice, house, "7") == 302
    assert choose(house.alice, house, "") == 302
    house.team.refresh_from_db()
    assert house.team.keep_days is None
