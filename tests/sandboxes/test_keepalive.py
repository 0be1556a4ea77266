"""A sandbox that is used does not end; one that is not, does."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from sandboxes import gateway, keepalive, ledger
from sandboxes.models import Sandbox

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)


def left(sandbox: Sandbox) -> timedelta:
    """Until its end by the backend, which must be that of the row."""
    sandbox.refresh_from_db()
    machine = gateway.info(sandbox)
    assert abs(machine.ends_at - sandbox.ends_at) < timedelta(seconds=5)
    return machine.ends_at - timezone.now()


@pytest.fixture
def old(sandbox) -> Sandbox:
    """Made for an hour, of which ten minutes are left."""
    now = timezone.now()
    gateway.set_timeout(sandbox, 600)
    sandbox.timeout_s = 3600
    sandbox.ends_at = now + timedelta(minutes=10)
    sandbox.started_at = sandbox.used_at = now - timedelta(minutes=50)
    sandbox.save()
    return sandbox


def test_its_time_counts_from_the_last_use(old) -> None:
    old.used_at = timezone.now() - timedelta(minutes=5)
    old.save()
    keepalive.run_once()
    assert timedelta(minutes=54) < left(old) < timedelta(minutes=56)


def test_one_that_is_not_used_keeps_its_end(old) -> None:
    keepalive.run_once()
    assert left(old) <= timedelta(minutes=10)


def test_a_command_that_runs_is_use(house, old) -> None:
    ledger.begin(old, "sleep 1000", actor=house.bob, pid=1)
    keepalive.run_once()
    assert left(old) > timedelta(minutes=59)


def test_a_command_that_nobody_sees_is_not(house, old) -> None:
    seen_at = timezone.now() - HOUR
    ledger.begin(old, "sleep 1000", actor=house.bob, pid=1, seen_at=seen_at)
    keepalive.run_once()
    assert left(old) <= timedelta(minutes=10)


def test_there_is_a_longest_life(old, settings) -> None:
    settings.MAX_LIFETIME_S = 70 * 60
    old.used_at = timezone.now()
    old.save()
    keepalive.run_once()
    assert timedelta(minutes=19) < left(old) < timedelta(minutes=21)


def test_the_end_never_moves_back(old) -> None:
    gateway.set_timeout(old, 2 * 3600)
    old.ends_at = timezone.now() + 2 * HOUR
    old.used_at = timezone.now()
    old.save()
    keepalive.run_once()
    assert left(old) > timedelta(minutes=119)


@pytest.mark.parametrize(("seconds", "is_hidden"), [(90, False), (900, True)])
def test_pages_warn_before_the_end(
    house, client, seconds: int, is_hidden: bool
) -> None:
    row = house.team.sandboxes.create(
        name="x",
        backend="local",
        request_key="x",
        state="running",
        ends_at=timezone.now() + timedelta(seconds=seconds),
    )
    client.force_login(house.victor)
    page = client.get(reverse("sandboxes:activity", args=[row.code])).content.decode()
    banner = page[page.index("data-ending") :].partition(">")[0]
    assert ("hidden" in banner) == is_hidden
