"""A backend that is sick: every action ends well, or in a state that is named.

The contract is the same on a plane that is well, on one that fails, and on one that
acts and loses its answer.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from sandboxes import actions, gateway, reaper, snapshots, steps
from sandboxes.actions import CreateRequest
from sandboxes.errors import SandboxError
from sandboxes.gateway import prompt
from sandboxes.models import ALIVE, Sandbox, Snapshot, State

from .fake_plane import Fault, Plane

pytestmark = pytest.mark.django_db(transaction=True)
CREATE = r"POST /v2/sandboxes"
PAUSE = r"POST /sandboxes/\w+/pause"
RESUME = r"POST (/v2)?/sandboxes/\w+/connect"
TIMEOUT = r"POST /sandboxes/\w+/timeout"
KILL = r"DELETE /sandboxes/\w+"
SNAPSHOT = r"POST /sandboxes/\w+/snapshots"
ILL = [429, 500, 502, 503, 504, "drop", "half", "garbage"]
WAIT_S = 20


def make(house, key: str = "k") -> Sandbox:
    return actions.create(house.bob, house.team, CreateRequest(), key=key)


def settle(*, rounds: int = 4) -> None:
    """Rounds of the reaper, as if each were long after what is under way."""
    threads_end()
    for _ in range(rounds):
        gateway.breaker("local").note(failed=False)
        long_ago = timezone.now() - 2 * reaper.GRACE
        moving = Sandbox.objects.filter(state__in=ALIVE)
        moving.update(state_at=long_ago, created_at=long_ago)
        Snapshot.objects.update(created_at=long_ago)
        reaper.run_once()
        threads_end()


def threads_end() -> None:
    """Wait until what runs in threads of its own has ended."""
    deadline = time.monotonic() + WAIT_S
    for thread in threading.enumerate():
        if thread.name.startswith(("sandbox-", "backend")):
            thread.join(max(0, deadline - time.monotonic()))


def in_step(plane: Plane, row: Sandbox) -> None:
    """Each row that lives has its one machine, and no other machine is there."""
    row.refresh_from_db()
    wanted = [row.sandbox_id] if row.state in ALIVE else []
    assert list(plane.machines) == wanted
    assert row.state in (State.RUNNING, State.PAUSED, State.GONE, State.FAILED)
    if wanted:
        assert plane.machines[row.sandbox_id]["state"] == row.state


@pytest.mark.parametrize("answer", ILL)
@pytest.mark.parametrize("times", [1, 2])
def test_create(house, plane: Plane, answer, times: int) -> None:
    plane.faults = [Fault(CREATE, answer, times)]
    row = make(house)
    assert row.state in (State.CREATING, State.RUNNING, State.FAILED)
    settle()
    in_step(plane, row)
    if answer in ("drop", "half", "garbage"):
        assert row.state == State.RUNNING
    if row.state == State.FAILED:
        assert row.error
    assert sum("POST /v2/sandboxes" in one for one in plane.asked) == 1


def change(
    house, plane: Plane, row: Sandbox, call: Callable[[], None], fault: Fault
) -> None:
    """Do it at a plane that is ill, then let the reaper find out."""
    plane.faults = [fault]
    with contextlib.suppress(SandboxError):
        call()
    settle()
    in_step(plane, row)


@pytest.mark.parametrize("answer", ILL)
def test_pause_and_resume(house, plane: Plane, answer) -> None:
    row = make(house)
    acted = answer in ("drop", "half", "garbage")
    pause = lambda: actions.pause(house.bob, row)  # noqa: E731
    change(house, plane, row, pause, Fault(PAUSE, answer, 1))
    assert row.state == (State.PAUSED if acted else State.RUNNING)
    plane.faults = []
    if row.state == State.RUNNING:
        actions.pause(house.bob, row)
    resume = lambda: actions.resume(house.bob, row)  # noqa: E731
    change(house, plane, row, resume, Fault(RESUME, answer, 1))
    assert row.state == (State.RUNNING if acted else State.PAUSED)


@pytest.mark.parametrize("answer", ILL)
def test_dispose(house, plane: Plane, answer) -> None:
    row = make(house)
    dispose = lambda: actions.dispose(house.bob, row)  # noqa: E731
    change(house, plane, row, dispose, Fault(KILL, answer, 1))
    assert row.state == State.GONE
    assert row.events.filter(kind="sandbox.gone").count() == 1


@pytest.mark.parametrize("answer", ILL)
def test_extend(house, plane: Plane, answer) -> None:
    row = make(house)
    extend = lambda: actions.extend(house.bob, row, 1800)  # noqa: E731
    change(house, plane, row, extend, Fault(TIMEOUT, answer, 1))
    there = gateway.info(row).ends_at
    row.refresh_from_db()
    assert row.ends_at is not None
    assert abs(row.ends_at - there) < timedelta(seconds=2)


@pytest.mark.parametrize("answer", ILL)
def test_snapshot(house, plane: Plane, answer) -> None:
    row = make(house)
    plane.faults = [Fault(SNAPSHOT, answer, 1)]
    taken = snapshots.take(house.bob, row, "before")
    settle()
    taken.refresh_from_db()
    assert len(plane.snapshots) == (taken.state == Snapshot.State.READY)
    assert taken.state in (Snapshot.State.READY, Snapshot.State.FAILED)
    if answer != 429:
        assert taken.state == Snapshot.State.READY


def test_a_hang_holds_nobody_up(house, plane: Plane, monkeypatch) -> None:
    monkeypatch.setattr(steps, "PATIENCE_S", 0.1)
    plane.faults = [Fault(CREATE, "hang")]
    begun = time.monotonic()
    row = make(house)
    # The plane hangs for 30 s.
    assert time.monotonic() - begun < 15
    assert row.state == State.CREATING
    plane.closing.set()


def test_a_refused_connection_is_named(house, plane: Plane, settings) -> None:
    settings.RUNTIME_URL = "http://127.0.0.1:9"
    row = make(house)
    threads_end()
    row.refresh_from_db()
    assert "does not answer" in row.error
    settings.RUNTIME_URL = plane.url
    settle()
    row.refresh_from_db()
    assert row.state == State.FAILED


def test_retry_after_keeps_the_backend_alone(plane: Plane) -> None:
    plane.answer, plane.headers = 429, {"Retry-After": "30"}
    with pytest.raises(SandboxError):
        gateway.templates("local")
    asked = len(plane.asked)
    with pytest.raises(SandboxError, match="Next try in"):
        gateway.templates("local")
    assert len(plane.asked) == asked


def rows_with_machines(house, plane: Plane, count: int) -> list[Sandbox]:
    rows = []
    for number in range(count):
        row = Sandbox.objects.create(
            team=house.team,
            name=f"x{number}",
            backend="local",
            sandbox_id=f"ibox{number}",
            request_key=f"k{number}",
            state=State.RUNNING,
            ends_at=timezone.now() + timedelta(hours=1),
        )
        plane.add(row.sandbox_id, kode_op=row.op_id, kode_instance="x")
        rows.append(row)
    return rows


def running() -> int:
    return Sandbox.objects.filter(state=State.RUNNING).count()


def test_what_is_missing_is_asked_for_twice_and_few_rows_end(house, plane) -> None:
    rows_with_machines(house, plane, 12)
    plane.machines.clear()
    reaper.run_once()
    assert running() == 12
    reaper.run_once()
    assert running() == 12 - reaper.MAX_ENDED
    for _ in range(2):
        reaper.run_once()
    assert running() == 0


def test_what_comes_back_is_no_longer_missing(house, plane) -> None:
    [row] = rows_with_machines(house, plane, 1)
    machine = plane.machines.pop(row.sandbox_id)
    reaper.run_once()
    plane.machines[row.sandbox_id] = machine
    reaper.run_once()
    del plane.machines[row.sandbox_id]
    reaper.run_once()
    assert running() == 1


def test_a_list_that_breaks_off_says_nothing(house, plane: Plane, settings) -> None:
    rows = rows_with_machines(house, plane, 3)
    plane.page_size = 1
    plane.machines.pop(rows[0].sandbox_id)
    for number in range(2):
        op = f"{number}" * 32
        plane.add(f"ior{number}", age_s=999, kode_op=op, kode_instance="x")
    settings.INSTANCE_ID = "x"
    for answer in (500, "drop", "half", "garbage", 429):
        # The first page comes, the second does not.
        plane.faults = [
            Fault(r"GET /v2/sandboxes", "", 1),
            Fault(r"GET /v2/sandboxes", answer),
        ]
        gateway.breaker("local").note(failed=False)
        reaper.run_once()
    assert running() == 3
    assert len(plane.machines) == 4


def test_a_list_without_end_is_given_up(house, plane: Plane, monkeypatch) -> None:
    rows_with_machines(house, plane, 2)
    page = plane._page
    monkeypatch.setattr(
        plane, "_page", lambda query: (*page(query)[:2], {"X-Next-Token": "0"})
    )
    with pytest.raises(SandboxError, match="twice"):
        gateway.machines("local", {"kode_instance": "x"})


def test_one_process_at_a_time_reaps(house, plane: Plane) -> None:
    from sandboxes import leases

    assert leases.hold(reaper.TASK, "another", timedelta(seconds=60))
    asked = len(plane.asked)
    reaper.run_once()
    assert len(plane.asked) == asked
    leases.release(reaper.TASK, "another")
    assert leases.hold(reaper.TASK, "a dead one", timedelta(seconds=-1))
    reaper.run_once()
    assert len(plane.asked) > asked


PAGES = [
    "/",
    "/sandboxes/",
    "/sandboxes/new/",
    "/templates/",
    "/sandboxes/{code}/",
    "/sandboxes/{code}/files/",
    "/sandboxes/{code}/files/etc/passwd?as=hex",
    "/sandboxes/{code}/files/?q=x",
    "/sandboxes/{code}/files/etc/passwd?download=1",
    "/sandboxes/{code}/files/?archive=zip",
    "/sandboxes/{code}/tree/",
    "/sandboxes/{code}/edit/?path=x",
    "/sandboxes/{code}/ports/",
    "/sandboxes/{code}/metrics/",
    "/sandboxes/{code}/exec/",
    "/sandboxes/{code}/snapshots/",
    "/sandboxes/{code}/settings/",
    "/sandboxes/{code}/activity/",
]
FORMS = ["extend", "fork", "pause", "dispose"]


@pytest.mark.parametrize("faulty", [".*", r"POST /\w+\.\w+/.*|GET /(files|health).*"])
def test_no_page_waits_for_what_hangs(house, plane, faulty, monkeypatch) -> None:
    """The plane hangs for 30 s: whoever waited for it would be seen."""
    monkeypatch.setattr(prompt, "PATIENCE_S", 0.5)
    [row] = rows_with_machines(house, plane, 1)
    plane.faults = [Fault(faulty, "hang")]
    client = Client(raise_request_exception=True)
    client.force_login(house.alice)
    slow = []
    for address in PAGES:
        gateway.breaker("local").note(failed=False)
        begun = time.monotonic()
        answer = client.get(address.format(code=row.code))
        if time.monotonic() - begun > 15:
            slow.append(address)
        assert answer.status_code in (200, 502, 503, 504), address
    for name in FORMS:
        gateway.breaker("local").note(failed=False)
        begun = time.monotonic()
        answer = client.post(f"/sandboxes/{row.code}/{name}/")
        assert answer.status_code in (302, 409, 503), name
        if time.monotonic() - begun > 15:
            slow.append(name)
    assert not slow
    plane.closing.set()
    threads_end()
