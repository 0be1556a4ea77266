"""Snapshots and forks: the same files in another sandbox, made once, never lost."""

import time
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sandboxes import actions, errors, gateway, snapshots
from sandboxes.models import Sandbox, Snapshot

pytestmark = pytest.mark.django_db(transaction=True)
WAIT_S = 60


def until(condition) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.05)


def ready(row: Snapshot) -> Snapshot:
    def is_made() -> bool:
        row.refresh_from_db()
        return row.state != Snapshot.State.MAKING

    until(is_made)
    assert row.state == Snapshot.State.READY, row.error
    return row


def running(sandbox: Sandbox) -> Sandbox:
    def is_running() -> bool:
        sandbox.refresh_from_db()
        return sandbox.is_running

    until(is_running)
    return sandbox


def ended(house, *made: Sandbox) -> None:
    for sandbox in made:
        actions.dispose(house.alice, sandbox)


def test_a_snapshot_makes_sandboxes_with_its_files(house, sandbox) -> None:
    gateway.run(sandbox, "echo kept > ~/mark")
    row = ready(snapshots.take(house.bob, sandbox, "before"))
    gateway.run(sandbox, "echo changed > ~/mark")
    made = running(snapshots.create(house.bob, row, key="from"))
    assert gateway.run(made, "cat ~/mark").stdout == "kept\n"
    assert made.pk != sandbox.pk
    assert snapshots.create(house.bob, row, key="from") == made
    ended(house, made)


def test_a_fork_has_the_files_and_settings_and_neither_sees_the_other(
    house, sandbox
) -> None:
    sandbox.envs, sandbox.workdir = {"COLOUR": "blue"}, "/tmp"
    sandbox.save()
    gateway.run(sandbox, "echo kept > /home/user/mark")
    fork = running(snapshots.fork(house.bob, sandbox, key="fork"))
    assert snapshots.fork(house.bob, sandbox, key="fork") == fork
    assert Snapshot.objects.count() == 1
    found = gateway.run(fork, "cat /home/user/mark; echo $COLOUR; pwd").stdout
    assert found == "kept\nblue\n/tmp\n"
    gateway.run(fork, "echo forked > /home/user/mark")
    assert gateway.run(sandbox, "cat /home/user/mark").stdout == "kept\n"
    ended(house, fork)


def test_a_snapshot_outlives_its_sandbox(house, sandbox) -> None:
    gateway.run(sandbox, "echo kept > ~/mark")
    row = ready(snapshots.take(house.bob, sandbox, "last"))
    actions.dispose(house.alice, sandbox)
    made = running(snapshots.create(house.bob, row, key="after"))
    assert gateway.run(made, "cat ~/mark").stdout == "kept\n"
    ended(house, made)


def test_a_lost_answer_makes_no_second_snapshot(house, sandbox) -> None:
    row = snapshots._row(house.bob, sandbox, "lost")
    made = gateway.take_snapshot(sandbox, row.label)  # and then the process died
    Snapshot.objects.update(created_at=timezone.now() - timedelta(hours=1))
    snapshots.recover()
    assert ready(row).snapshot_id == made


def test_one_whose_sandbox_ended_is_given_up(house, sandbox) -> None:
    row = snapshots._row(house.bob, sandbox, "late")
    Snapshot.objects.update(created_at=timezone.now() - timedelta(hours=1))
    actions.dispose(house.alice, sandbox)
    snapshots.recover()
    row.refresh_from_db()
    assert row.state == Snapshot.State.FAILED
    assert row.error


def test_a_deleted_snapshot_is_gone_and_what_was_made_of_it_is_not(
    house, sandbox
) -> None:
    gateway.run(sandbox, "echo kept > ~/mark")
    row = ready(snapshots.take(house.bob, sandbox, "old"))
    made = running(snapshots.create(house.bob, row, key="from"))
    snapshots.delete(house.alice, row)
    snapshots.delete(house.alice, row)
    row.refresh_from_db()
    assert gateway.run(made, "cat ~/mark").stdout == "kept\n"
    assert gateway.find_snapshot(sandbox, row.label) == ""
    with pytest.raises(errors.NotReady):
        snapshots.create(house.bob, row, key="again")
    ended(house, made)


def test_a_fork_over_the_quota_leaves_nothing(house, sandbox, settings) -> None:
    settings.MAX_RUNNING_SANDBOXES = 1
    with pytest.raises(Exception, match="running sandboxes"):
        snapshots.fork(house.bob, sandbox, key="fork")
    assert not Snapshot.objects.exists()
    assert Sandbox.objects.count() == 1


def test_a_paused_sandbox_says_what_to_do(house, sandbox) -> None:
    sandbox.state = "paused"
    sandbox.save()
    with pytest.raises(errors.NotReady, match="paused"):
        snapshots.take(house.bob, sandbox, "x")


@pytest.mark.parametrize("name", ["", " ", "x" * 81])
def test_a_name_that_is_none_is_refused(house, sandbox, name: str) -> None:
    with pytest.raises(errors.Invalid):
        snapshots.take(house.bob, sandbox, name)


def test_only_who_may_does_and_a_stranger_finds_nothing(house, sandbox) -> None:
    row = Snapshot.objects.create(
        team=house.team,
        sandbox=sandbox,
        owner=house.bob,
        name="one",
        backend=sandbox.backend,
        state=Snapshot.State.READY,
    )
    codes = sandbox.code, row.code
    posts = [
        reverse("sandboxes:snapshots", args=codes[:1]),
        reverse("sandboxes:fork", args=codes[:1]),
        reverse("sandboxes:create_from", args=codes),
        reverse("sandboxes:delete_snapshot", args=codes),
    ]
    client = Client()
    for person, sees, does in ((house.victor, 200, 403), (house.charlie, 404, 404)):
        client.force_login(person)
        assert client.get(posts[0]).status_code == sees
        assert [client.post(at).status_code for at in posts] == [does] * 4
    assert Sandbox.objects.count() == 1
