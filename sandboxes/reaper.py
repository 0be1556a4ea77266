"""Keeps rows and machines in step: finishes what a crash left, frees what is over.

`run_once` is safe to run at any time, in any number of processes: each change is
a compare-and-set. It never touches a machine of another instance, and does
nothing at all when the backend's list cannot be had.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from . import actions, gateway
from .errors import Gone, SandboxError
from .models import ALIVE, Sandbox, State

logger = logging.getLogger(__name__)
# A create call ends within this, one way or the other.
GRACE = timedelta(seconds=120)
# Transient states that no process works on any more.
STUCK = timedelta(seconds=30)
# Machines without a row: killed when seen twice and old enough, a few at a time.
ORPHAN_AGE = timedelta(seconds=120)
MAX_ORPHANS = 5
_seen_once: set[str] = set()


def run_once() -> None:
    """One round over all rows and backends."""
    for name in gateway.backends():
        try:
            machines = {m.sandbox_id: m for m in gateway.machines(name)}
        except SandboxError as error:
            logger.info("backend %s: %s", name, error)
            continue
        rows = Sandbox.objects.filter(backend=name, state__in=ALIVE)
        for sandbox in rows:
            _follow(sandbox, machines)
        _kill_orphans(name, machines)


def run_forever(stop: Callable[[], bool], every_s: float = 5.0) -> None:
    """Rounds until `stop` says so."""
    while not stop():
        try:
            run_once()
        except Exception:
            # The outermost frame: one bad round must not be the last.
            logger.exception("a round failed")
        until = time.monotonic() + every_s
        while not stop() and time.monotonic() < until:
            time.sleep(0.2)


def _follow(sandbox: Sandbox, machines: dict[str, gateway.Machine]) -> None:
    """Bring one row in step with its machine."""
    machine = machines.get(sandbox.sandbox_id) or next(
        (m for m in machines.values() if m.metadata.get("kode_op") == sandbox.op_id),
        None,
    )
    try:
        match State(sandbox.state):
            case State.CREATING:
                _creating(sandbox, machine)
            case State.KILLING:
                if _is_stuck(sandbox):
                    actions.finish(sandbox.pk)
            case State.RUNNING | State.PAUSED:
                _settled(sandbox, machine)
            case State.PAUSING | State.RESUMING:
                _moving(sandbox, machine)
    except SandboxError as error:
        logger.warning("sandbox %s: %s", sandbox.code, error)


def _creating(sandbox: Sandbox, machine: gateway.Machine | None) -> None:
    if machine is not None:
        if _is_stuck(sandbox):
            actions.adopt(sandbox, machine)
    elif timezone.now() - sandbox.created_at > GRACE:
        actions.fail(sandbox, sandbox.error or "The backend never made it.")


def _settled(sandbox: Sandbox, machine: gateway.Machine | None) -> None:
    if machine is None:
        # The list is older than a row that just started: ask for this one.
        try:
            machine = gateway.info(sandbox)
        except Gone:
            actions.end(sandbox, reason=_why_gone(sandbox))
            return
    if machine.state == "paused" and sandbox.state == State.RUNNING:
        if Sandbox.objects.move(sandbox.pk, State.RUNNING, State.PAUSED):
            gateway.forget(sandbox)
            actions.record(sandbox, "sandbox.paused", reason="Its time was over.")
            actions.announce(sandbox)
    elif machine.state == "running" and sandbox.state == State.PAUSED:
        if Sandbox.objects.move(
            sandbox.pk, State.PAUSED, State.RUNNING, ends_at=machine.ends_at
        ):
            actions.record(sandbox, "sandbox.resumed", reason="Outside this dashboard.")
            actions.announce(sandbox)
    elif sandbox.ends_at != machine.ends_at and machine.state == "running":
        Sandbox.objects.filter(pk=sandbox.pk, state=State.RUNNING).update(
            ends_at=machine.ends_at
        )


def _why_gone(sandbox: Sandbox) -> str:
    if sandbox.ends_at and sandbox.ends_at <= timezone.now() + timedelta(seconds=5):
        return "Its time was over."
    return "The backend no longer has it."


def _moving(sandbox: Sandbox, machine: gateway.Machine | None) -> None:
    if not _is_stuck(sandbox):
        return
    if machine is None:
        actions.end(sandbox, reason="The backend no longer has it.")
    else:
        new = State.PAUSED if machine.state == "paused" else State.RUNNING
        old = State(sandbox.state)
        if Sandbox.objects.move(sandbox.pk, old, new, ends_at=machine.ends_at):
            actions.announce(sandbox)


def _is_stuck(sandbox: Sandbox) -> bool:
    return timezone.now() - sandbox.state_at > STUCK


def _kill_orphans(name: str, machines: dict[str, gateway.Machine]) -> None:
    """End machines of ours that no row wants."""
    known = set(
        Sandbox.objects.filter(backend=name, state__in=ALIVE).values_list(
            "op_id", flat=True
        )
    )
    old = timezone.now() - ORPHAN_AGE
    orphans = {
        m.sandbox_id
        for m in machines.values()
        if m.metadata.get(gateway.OP_KEY) not in known and m.started_at < old
    }
    for sandbox_id in sorted(orphans & _seen_once)[:MAX_ORPHANS]:
        logger.warning("backend %s: killing orphan %s", name, sandbox_id)
        try:
            gateway.kill(Sandbox(backend=name, sandbox_id=sandbox_id))
        except SandboxError as error:
            logger.warning("orphan %s: %s", sandbox_id, error)
    _seen_once.clear()
    _seen_once.update(orphans)
