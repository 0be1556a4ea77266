"""Any order of actions, crashes, lost answers and rounds of the reaper.

Whatever happens: in the end no machine without a row, no row without its machine or
stuck between two states, and never more in use than the team may have.
"""

import importlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kode_web.teams.quotas import QuotaExceeded
from sandboxes import actions, gateway, leases, reaper
from sandboxes.actions import CreateRequest
from sandboxes.errors import SandboxError
from sandboxes.models import ALIVE, Orphan, Sandbox, State

from .fake_plane import Fault, Plane, stamp

pytestmark = pytest.mark.django_db(transaction=True)
LIMIT = 3
REMOTE = ("create", "pause", "resume", "kill", "set_timeout")
SETTLED = (State.RUNNING, State.PAUSED, State.GONE, State.FAILED)
# How the backend, or the process, does at the next call.
HOW = st.sampled_from(["well", "well", "drop", "half", 500, 429, "before", "after"])
WHAT = st.sampled_from(
    [
        *("create", "create", "create again", "pause", "pause", "resume", "resume"),
        *("dispose", "extend", "wait", "wait", "reconcile", "reconcile"),
        *("machine ends", "machine pauses"),
    ]
)
# The package's function of that name hides the module.
backends = importlib.import_module("sandboxes.gateway.backends")


class Crash(BaseException):
    """The process dies here."""


def later(seconds: float, plane: Plane) -> None:
    """Let so much time pass for everybody."""
    span = timedelta(seconds=seconds)
    for row in Sandbox.objects.all():
        Sandbox.objects.filter(pk=row.pk).update(
            state_at=row.state_at - span, created_at=row.created_at - span
        )
    for machine in plane.machines.values():
        began = machine["startedAt"]
        at = datetime.fromisoformat(began).timestamp()
        machine["startedAt"] = stamp(at - seconds)


class AnyOrder(RuleBasedStateMachine):
    """The rules: what people, the backend, time and the reaper do."""

    def __init__(self, house: Any, plane: Plane) -> None:
        super().__init__()
        self.house, self.plane = house, plane
        Sandbox.objects.all().delete()
        Orphan.objects.all().delete()
        plane.machines.clear()
        plane.faults.clear()
        backends._breakers.clear()
        self.dying, self.forms = "", 0

    # One rule for all, so that each run has every kind of thing in it.
    @rule(what=WHAT, how=HOW, which=st.integers(0, 5))
    def happens(self, what: str, how: str | int, which: int) -> None:
        """One thing happens to one of them."""
        machines = sorted(self.plane.machines)
        match what:
            case "create" | "create again":
                self.forms += what == "create"
                self.act(how, lambda: self.ask_for(f"form {self.forms}"))
            case "reconcile":
                self.act(how, reaper.run_once)
            case "wait":
                later((10, 40, 130)[which % 3], self.plane)
            case "machine ends" if machines:
                del self.plane.machines[machines[which % len(machines)]]
            case "machine pauses" if machines:
                name = machines[which % len(machines)]
                self.plane.machines[name]["state"] = "paused"
            case "extend":
                self.on(how, which, lambda user, row: actions.extend(user, row, 60))
            case "pause" | "resume" | "dispose":
                self.on(how, which, getattr(actions, what))

    def ask_for(self, key: str) -> None:
        actions.create(self.house.bob, self.house.team, CreateRequest(), key=key)

    def on(self, how: str | int, which: int, call: Callable[..., None]) -> None:
        rows = Sandbox.objects.order_by("pk")
        if rows:
            row = rows[which % len(rows)]
            self.act(how, lambda: call(self.house.bob, row))

    def act(self, how: str | int, call: Callable[[], object]) -> None:
        """Do it; a fault meets its first call of the backend that changes things."""
        backends._breakers.clear()
        self.plane.faults.clear()
        if how in ("before", "after"):
            self.dying = str(how)
        elif how != "well":
            self.plane.faults = [Fault(r"(POST|DELETE) .*", how, 1)]
        try:
            call()
        except (SandboxError, QuotaExceeded, Crash):
            pass
        finally:
            self.dying = ""
            self.plane.faults.clear()

    def dies(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the gateway at which the process may die."""

        def call(*arguments: Any, **options: Any) -> Any:
            dying, self.dying = self.dying, ""
            if dying == "before":
                raise Crash
            result = real(*arguments, **options)
            if dying == "after":
                raise Crash
            return result

        return call

    @invariant()
    def never_more_than_the_quota(self) -> None:
        held = Sandbox.objects.filter(team=self.house.team).holding().count()
        assert 0 <= held <= LIMIT

    @invariant()
    def one_row_for_a_form(self) -> None:
        keys = Sandbox.objects.values_list("request_key", flat=True)
        assert len(set(keys)) == len(keys)

    def teardown(self) -> None:
        for _ in range(12):
            later(130, self.plane)
            self.act("well", reaper.run_once)
        alive = {row.sandbox_id: row for row in Sandbox.objects.filter(state__in=ALIVE)}
        assert set(alive) == set(self.plane.machines)
        for sandbox_id, row in alive.items():
            assert row.state == self.plane.machines[sandbox_id]["state"]
        assert not Sandbox.objects.exclude(state__in=SETTLED).exists()


def inline(call: Callable[[Sandbox], None], sandbox: Sandbox) -> None:
    """What runs in a thread otherwise, at once."""
    call(Sandbox.objects.get(pk=sandbox.pk))


def test_nothing_is_lost_in_any_order(house, plane, settings, monkeypatch) -> None:
    settings.MAX_RUNNING_SANDBOXES = LIMIT
    assert leases.hold(reaper.TASK, reaper.HOLDER, timedelta(hours=1))
    monkeypatch.setattr(actions, "soon", inline)
    real = {name: getattr(gateway, name) for name in REMOTE}
    current: list[AnyOrder] = []

    def begin() -> AnyOrder:
        current[:] = [AnyOrder(house, plane)]
        return current[0]

    for name in REMOTE:

        def call(*arguments: Any, _name: str = name, **options: Any) -> Any:
            return current[0].dies(real[_name])(*arguments, **options)

        monkeypatch.setattr(gateway, name, call)
    run_state_machine_as_test(
        begin,
        settings=profile(
            max_examples=60,
            stateful_step_count=25,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
