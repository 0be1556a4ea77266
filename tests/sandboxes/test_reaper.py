"""The reaper: what a crash leaves is finished, and strangers are left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from sandboxes import gateway, reaper, steps
from sandboxes.models import Sandbox, State

from .crash import POINTS
from .fake_plane import Plane

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
OLD = 2 * reaper.ORPHAN_AGE.total_seconds()


def database_url() -> str:
    """The test database, for a process of its own."""
    known = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{known['NAME']}"
    login = f"{known['USER']}:{known['PASSWORD']}@{known['HOST']}:{known['PORT']}"
    return f"postgresql://{login}/{known['NAME']}"


def age_all() -> None:
    """As if the crash were long ago."""
    long_ago = timezone.now() - 2 * reaper.GRACE
    Sandbox.objects.update(state_at=long_ago, created_at=long_ago)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_is_made_good(house, backend, point: str) -> None:
    known = {
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "kode_web.settings",
        "KODE_RUNTIME_URL": backend.api_url,
        "KODE_RUNTIME_KEY_FILE": str(backend.root / "api-key"),
    }
    words = ["-m", "tests.sandboxes.crash", point, house.bob.pk, house.team.pk]
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | known,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr.decode()
    age_all()
    for _ in range(2):
        reaper.run_once()
    row = Sandbox.objects.get()
    there = gateway.machines("local", {gateway.OP_KEY: row.op_id})
    expected = {
        "create.before_remote": State.FAILED,
        "pause.after_remote": State.PAUSED,
    }.get(point, State.GONE if point.startswith("dispose") else State.RUNNING)
    assert row.state == expected
    is_there = expected in (State.RUNNING, State.PAUSED)
    assert [m.sandbox_id for m in there] == ([row.sandbox_id] if is_there else [])
    for machine in there:
        backend.call("DELETE", f"/sandboxes/{machine.sandbox_id}")


def ours(settings, op: str = "a" * 32) -> dict[str, str]:
    return {"kode_instance": settings.INSTANCE_ID, "kode_op": op}


def test_an_orphan_is_killed_when_seen_twice(plane: Plane, settings) -> None:
    plane.add("iorphan", age_s=OLD, **ours(settings))
    reaper.run_once()
    assert "iorphan" in plane.machines
    reaper.run_once()
    assert plane.machines == {}


def test_strangers_are_left_alone(plane: Plane, settings) -> None:
    """Even when the backend does not filter, as this one."""
    plane.add("ino", age_s=OLD)
    plane.add("iother", age_s=OLD, kode_instance="another", kode_op="a" * 32)
    plane.add("iforeign", age_s=OLD, kode_op="a" * 32)
    plane.add("inoop", age_s=OLD, kode_instance=settings.INSTANCE_ID)
    plane.add("iyoung", age_s=5, **ours(settings))
    for _ in range(4):
        reaper.run_once()
    assert set(plane.machines) == {"ino", "iother", "iforeign", "inoop", "iyoung"}


def test_a_machine_with_a_living_row_is_no_orphan(house, plane, settings) -> None:
    row = Sandbox.objects.create(
        team=house.team, name="x", backend="local", sandbox_id="imine", request_key="k"
    )
    Sandbox.objects.update(state=State.RUNNING)
    plane.add("imine", age_s=OLD, **ours(settings, row.op_id))
    for _ in range(3):
        reaper.run_once()
    assert "imine" in plane.machines


def test_a_failed_list_kills_nothing(house, plane, settings) -> None:
    plane.add("iorphan", age_s=OLD, **ours(settings))
    row = Sandbox.objects.create(
        team=house.team, name="x", backend="local", sandbox_id="ix", request_key="k"
    )
    Sandbox.objects.update(state=State.RUNNING)
    for answer in (500, 429, "garbage", "drop"):
        plane.answer = answer
        reaper.run_once()
    row.refresh_from_db()
    assert row.state == State.RUNNING
    assert "iorphan" in plane.machines


def test_a_list_that_is_cut_ends_no_row(house, plane, settings, monkeypatch) -> None:
    row = Sandbox.objects.create(
        team=house.team, name="x", backend="local", sandbox_id="ix", request_key="k"
    )
    Sandbox.objects.update(state=State.RUNNING)
    plane.add("ix", **ours(settings, row.op_id))
    monkeypatch.setattr(gateway, "machines", lambda *_: [])
    reaper.run_once()
    row.refresh_from_db()
    assert row.state == State.RUNNING


def test_few_orphans_are_killed_at_once(plane: Plane, settings) -> None:
    for n in range(20):
        plane.add(f"i{n:03}", age_s=OLD, **ours(settings))
    reaper.run_once()
    reaper.run_once()
    assert len(plane.machines) == 20 - reaper.MAX_ENDED


def test_a_lost_answer_is_found_by_its_mark(house, plane) -> None:
    row = Sandbox.objects.create(
        team=house.team, name="x", backend="local", request_key="k"
    )
    plane.answer = "drop"
    steps.start(row)
    assert (len(plane.machines), Sandbox.objects.get().state) == (1, State.CREATING)
    plane.answer = ""
    reaper.run_once()
    row.refresh_from_db()
    assert row.state == State.RUNNING
    assert list(plane.machines) == [row.sandbox_id]


def test_a_machine_that_pauses_at_its_end_pauses_its_row(sandbox) -> None:
    gateway.pause(sandbox)
    reaper.run_once()
    sandbox.refresh_from_db()
    assert sandbox.state == State.PAUSED
    assert sandbox.events.filter(kind="sandbox.paused").count() == 1


def test_what_cannot_be_ended_is_said_once(house, plane) -> None:
    row = Sandbox.objects.create(
        team=house.team, name="x", backend="local", sandbox_id="ix", request_key="k"
    )
    Sandbox.objects.update(
        state=State.KILLING, state_at=timezone.now() - 2 * reaper.ALARM
    )
    plane.answer = 500
    for _ in range(3):
        reaper.run_once()
    assert row.events.filter(kind="sandbox.stuck").count() == 1
    plane.answer = ""
    gateway.breaker("local").note(failed=False)
    reaper.run_once()
    row.refresh_from_db()
    assert row.state == State.GONE
