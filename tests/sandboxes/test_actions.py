"""Journeys 1 and 5: create and dispose, on the real backend."""

import threading
import time

import pytest
from django.db import connection
from django.utils import timezone

from kode_web.teams.quotas import QuotaExceeded
from sandboxes import actions, gateway, reaper, steps
from sandboxes.actions import CreateRequest
from sandboxes.errors import Gone, Invalid, NotReady, Unreachable
from sandboxes.models import Sandbox, State
from tests.conftest import until_running

pytestmark = pytest.mark.django_db(transaction=True)


def until_gone(sandbox: Sandbox) -> None:
    deadline = time.monotonic() + 20
    while sandbox.state != State.GONE and time.monotonic() < deadline:
        time.sleep(0.05)
        sandbox.refresh_from_db()
    assert sandbox.state == State.GONE


def intent(house, **fields) -> Sandbox:
    """A row as a crash leaves it before the backend was called."""
    request = CreateRequest(**fields)
    row = actions._row(house.bob, house.team, request, "local", "crash")
    row.save()
    return row


def test_a_command_runs_in_a_new_sandbox(sandbox) -> None:
    result = gateway.run(sandbox, "echo hi; echo no >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("hi\n", "no\n", 3)


def test_options_reach_the_sandbox(house, backend) -> None:
    request = CreateRequest(
        envs={"COLOUR": "blue"}, metadata={"a": "b"}, workdir="/tmp", timeout_s=600
    )
    row = until_running(actions.create(house.bob, house.team, request, key="o"))
    assert gateway.run(row, "echo $COLOUR; pwd").stdout == "blue\n/tmp\n"
    machine = gateway.info(row)
    assert machine.metadata["a"] == "b"
    assert 500 < (machine.ends_at - timezone.now()).total_seconds() <= 600
    gateway.kill(row)


def test_the_same_form_twice_makes_one_sandbox(house, backend) -> None:
    first = actions.create(house.bob, house.team, CreateRequest(), key="same")
    second = actions.create(house.bob, house.team, CreateRequest(), key="same")
    assert first.pk == second.pk
    gateway.kill(until_running(first))


def test_no_backend_says_what_to_do(house, settings) -> None:
    settings.RUNTIME_URL = settings.E2B_API_KEY = ""
    with pytest.raises(Unreachable, match=r"\./kode doctor"):
        actions.create(house.bob, house.team, CreateRequest(), key="none")
    assert not Sandbox.objects.exists()


@pytest.mark.parametrize(
    "request_",
    [CreateRequest(timeout_s=10**6), CreateRequest(metadata={"kode_op": ""})],
)
def test_what_no_backend_would_take_is_refused(house, backend, request_) -> None:
    with pytest.raises(Invalid):
        actions.create(house.bob, house.team, request_, key="bad")


def test_dispose_ends_the_machine_and_keeps_the_record(house, sandbox) -> None:
    actions.dispose(house.bob, sandbox)
    until_gone(sandbox)
    with pytest.raises(Gone):
        gateway.info(sandbox)
    kinds = set(sandbox.events.values_list("kind", flat=True))
    assert {"sandbox.created", "sandbox.disposed", "sandbox.gone"} <= kinds


def test_dispose_any_number_of_times(house, sandbox) -> None:
    for _ in range(3):
        actions.dispose(house.bob, sandbox)
    until_gone(sandbox)
    assert sandbox.events.filter(kind="sandbox.disposed").count() == 1


def test_pause_and_resume_keep_files_and_processes(house, sandbox) -> None:
    gateway.run(sandbox, "echo kept > /tmp/f; sleep 300 >/dev/null 2>&1 &")
    actions.pause(house.bob, sandbox)
    sandbox.refresh_from_db()
    assert sandbox.state == State.PAUSED
    with pytest.raises(NotReady):
        gateway.run(sandbox, "true")
    actions.resume(house.bob, sandbox)
    sandbox.refresh_from_db()
    assert gateway.run(sandbox, "cat /tmp/f; pgrep -c sleep").stdout == "kept\n1\n"


def test_extend_moves_the_end_but_not_past_the_longest_life(house, sandbox) -> None:
    before = sandbox.ends_at
    actions.extend(house.bob, sandbox, 1800)
    sandbox.refresh_from_db()
    assert (sandbox.ends_at - before).total_seconds() == pytest.approx(1800, abs=2)
    actions.extend(house.bob, sandbox, 10**6)
    sandbox.refresh_from_db()
    assert sandbox.ends_at == sandbox.latest_end
    with pytest.raises(NotReady):
        actions.extend(house.bob, sandbox, 60)


@pytest.mark.parametrize("seconds", [0, -60])
def test_extending_never_shortens(house, sandbox, seconds: int) -> None:
    with pytest.raises(Invalid):
        actions.extend(house.bob, sandbox, seconds)


def test_resuming_takes_a_place_of_the_quota(house, sandbox, settings) -> None:
    actions.pause(house.bob, sandbox)
    settings.MAX_RUNNING_SANDBOXES = 0
    with pytest.raises(QuotaExceeded):
        actions.resume(house.bob, sandbox)
    sandbox.refresh_from_db()
    assert sandbox.state == State.PAUSED


def test_everything_at_once_ends_as_gone(house, sandbox) -> None:
    """Row and machine agree whatever order it comes in."""
    wrong: list[Exception] = []

    def do(action) -> None:
        try:
            action(house.bob, Sandbox.objects.get(pk=sandbox.pk))
        except (NotReady, Gone):
            pass
        except Exception as error:
            wrong.append(error)
        finally:
            connection.close()

    verbs = [actions.pause, actions.resume, actions.dispose] * 8
    threads = [threading.Thread(target=do, args=(verb,)) for verb in verbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Sandbox.objects.filter(state=State.KILLING).update(
        state_at=timezone.now() - 2 * reaper.STUCK
    )
    reaper.run_once()
    until_gone(sandbox)
    assert wrong == []
    assert gateway.machines("local", {gateway.OP_KEY: sandbox.op_id}) == []


def test_a_sick_backend_keeps_no_page_waiting(house, plane, settings) -> None:
    settings.DEFAULT_BACKEND = "local"
    plane.answer = "hang"
    begun = time.monotonic()
    row = actions.create(house.bob, house.team, CreateRequest(), key="slow")
    assert time.monotonic() - begun < 3
    assert (row.state, actions.stage(row)) == (State.CREATING, "Starting")
    actions.dispose(house.bob, row)
    assert actions.stage(row) == "Disposing"


def test_connecting_does_not_change_the_end(sandbox) -> None:
    before = gateway.info(sandbox).ends_at
    gateway.forget(sandbox)
    gateway.run(sandbox, "true")
    assert abs((gateway.info(sandbox).ends_at - before).total_seconds()) < 2


def test_crash_after_the_intent_frees_the_row(house, backend) -> None:
    row = intent(house)
    Sandbox.objects.update(created_at=timezone.now() - 2 * reaper.GRACE)
    reaper.run_once()
    row.refresh_from_db()
    assert row.state == State.FAILED


def test_crash_after_the_remote_create_adopts_the_machine(house, backend) -> None:
    row = intent(house)
    machine = gateway.create(row)
    Sandbox.objects.update(state_at=timezone.now() - 2 * reaper.STUCK)
    reaper.run_once()
    row.refresh_from_db()
    assert (row.state, row.sandbox_id) == (State.RUNNING, machine.sandbox_id)
    gateway.kill(row)


def test_a_machine_that_came_after_the_dispose_is_killed(house, backend) -> None:
    row = intent(house)
    Sandbox.objects.filter(pk=row.pk).update(state=State.KILLING)
    machine = gateway.create(row)
    steps.adopt(row, machine)
    with pytest.raises(Gone):
        gateway.info(row, sandbox_id=machine.sandbox_id)


def test_crash_in_the_middle_of_dispose_is_finished(sandbox) -> None:
    Sandbox.objects.update(
        state=State.KILLING, state_at=timezone.now() - 2 * reaper.STUCK
    )
    reaper.run_once()
    until_gone(sandbox)


def test_a_machine_that_ended_by_itself_ends_its_row(sandbox) -> None:
    gateway.kill(sandbox)
    for _ in range(2):
        reaper.run_once()
    until_gone(sandbox)


def test_a_young_machine_without_a_row_is_left_alone(house, backend) -> None:
    row = intent(house)
    machine = gateway.create(row)
    row.events.all().delete()
    row.delete()
    for _ in range(3):
        reaper.run_once()
    ghost = Sandbox(backend="local", sandbox_id=machine.sandbox_id)
    assert gateway.info(ghost).state == "running"
    gateway.kill(ghost)


def test_an_unreachable_backend_changes_nothing(sandbox, settings) -> None:
    settings.RUNTIME_URL = "http://127.0.0.1:9"
    reaper.run_once()
    sandbox.refresh_from_db()
    assert sandbox.state == State.RUNNING


def test_never_above_the_quota(house, settings) -> None:
    """Twenty threads at a limit of two, on whatever database this is."""
    settings.MAX_RUNNING_SANDBOXES = 2
    refused = []

    def try_one(number: int) -> None:
        try:
            actions.quotas.reserve(
                house.team,
                what="running sandboxes",
                holding=lambda: Sandbox.objects.filter(team=house.team).holding(),
                limit=2,
                make=lambda: Sandbox.objects.create(
                    team=house.team, name="x", backend="local", request_key=str(number)
                ),
            )
        except QuotaExceeded as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=try_one, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Sandbox.objects.holding().count() == 2
    assert len(refused) == 18
    assert "2 of 2 running sandboxes" in str(refused[0])
