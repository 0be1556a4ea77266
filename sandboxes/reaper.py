"""Keeps rows and machines in step: finishes what a crash left, frees what is over.

`run_once` is safe to run at any time, in any number of processes: each change is
a compare-and-set. It never touches a machine of another instance, and does
nothing at all when the backend's list cannot be had.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from . import exec, gateway, keepalive, snapshots, steps
from .errors import Gone, SandboxError
from .models import ALIVE, Event, Sandbox, State

logger = logging.getLogger(__name__)
# A create call ends within this, one way or the other.
GRACE = steps.LATE
# Transient states that no process works on any more.
STUCK = timedelta(seconds=30)
# A create call that failed with an unclear answer: its machine is listed by then.
UNCLEAR = timedelta(seconds=20)
# Someone should look at a machine that cannot be ended for so long.
ALARM = timedelta(minutes=5)
# Machines without a row: killed when seen twice and old enough, a few at a time.
ORPHAN_AGE = timedelta(seconds=120)
MAX_ORPHANS = 5
_seen_once: dict[str, set[str]] = {}

type Machines = dict[str, gateway.Machine]


def run_once() -> None:
    """One round over all rows and backends."""
    _alarm()
    exec.recover()
    snapshots.recover()
    for name in gateway.backends():
        try:
            machines = {m.sandbox_id: m for m in gateway.machines(name)}
        except SandboxError as error:
            logger.info("backend %s: %s", name, error)
            continue
        for sandbox in Sandbox.objects.filter(backend=name, state__in=ALIVE):
            _follow(sandbox, machines)
        _kill_orphans(name, machines)
    keepalive.run_once()


def run_forever(stop: Callable[[], bool], every_s: float = 5.0) -> None:
    """Rounds until `stop` says so."""
    while not stop():
        close_old_connections()
        try:
            run_once()
        except Exception:
            # The outermost frame: one bad round must not be the last.
            logger.exception("a round failed")
        until = time.monotonic() + every_s
        while not stop() and time.monotonic() < until:
            time.sleep(0.2)


def _follow(sandbox: Sandbox, machines: Machines) -> None:
    """Bring one row in step with its machine."""
    machine = machines.get(sandbox.sandbox_id) or next(
        (
            m
            for m in machines.values()
            if m.metadata.get(gateway.OP_KEY) == sandbox.op_id
        ),
        None,
    )
    try:
        match State(sandbox.state):
            case State.CREATING:
                _creating(sandbox, machine)
            case State.KILLING:
                if _age(sandbox) > STUCK:
                    steps.finish(sandbox)
            case State.RUNNING | State.PAUSED:
                _settled(sandbox, machine)
            case State.PAUSING | State.RESUMING:
                _moving(sandbox, machine)
    except SandboxError as error:
        logger.warning("sandbox %s: %s", sandbox.code, error)


def _creating(sandbox: Sandbox, machine: gateway.Machine | None) -> None:
    """Adopt the machine, or give the row up when there can be none any more."""
    if machine is not None:
        if sandbox.error or _age(sandbox) > STUCK:
            steps.adopt(sandbox, machine)
    elif timezone.now() - sandbox.created_at > GRACE or (
        sandbox.error and _age(sandbox) > UNCLEAR
    ):
        steps.fail(sandbox, sandbox.error or "The backend never made it.")


def _settled(sandbox: Sandbox, machine: gateway.Machine | None) -> None:
    """Follow what the machine did by itself."""
    if machine is None:
        # The list may be cut, or older than the row: only an answer about this
        # very machine ends it.
        try:
            machine = gateway.info(sandbox)
        except Gone:
            steps.end(sandbox, reason=_why_gone(sandbox))
            return
    fields = {"ends_at": machine.ends_at}
    if machine.state == "paused" and sandbox.state == State.RUNNING:
        gateway.forget(sandbox)
        steps.step(
            sandbox,
            (State.RUNNING,),
            State.PAUSED,
            "sandbox.paused",
            reason="Its time was over.",
        )
    elif machine.state == "running" and sandbox.state == State.PAUSED:
        steps.step(
            sandbox,
            (State.PAUSED,),
            State.RUNNING,
            "sandbox.resumed",
            fields=fields,
            reason="Outside this dashboard.",
        )
    elif machine.state == "running" and sandbox.ends_at != machine.ends_at:
        Sandbox.objects.filter(pk=sandbox.pk, state=State.RUNNING).update(**fields)


def _why_gone(sandbox: Sandbox) -> str:
    if sandbox.ends_at and sandbox.ends_at <= timezone.now() + timedelta(seconds=5):
        return "Its time was over."
    return "The backend no longer has it."


def _moving(sandbox: Sandbox, machine: gateway.Machine | None) -> None:
    """Settle a pause or a resume that no process works on any more."""
    if _age(sandbox) < (GRACE if sandbox.state == State.RESUMING else STUCK):
        return
    if machine is None:
        try:
            machine = gateway.info(sandbox)
        except Gone:
            steps.end(sandbox, reason="The backend no longer has it.")
            return
    is_paused = machine.state == "paused"
    steps.step(
        sandbox,
        (State(sandbox.state),),
        State.PAUSED if is_paused else State.RUNNING,
        "sandbox.paused" if is_paused else "sandbox.resumed",
        fields={"ends_at": machine.ends_at},
    )


def _age(sandbox: Sandbox) -> timedelta:
    """Since the row came into its state."""
    return timezone.now() - sandbox.state_at


def _alarm() -> None:
    """Say once of each machine that it cannot be ended."""
    late = Sandbox.objects.filter(
        state=State.KILLING, state_at__lt=timezone.now() - ALARM
    )
    for sandbox in late.exclude(events__kind="sandbox.stuck"):
        logger.error("sandbox %s cannot be ended; it may cost money", sandbox.code)
        Event.objects.create(sandbox=sandbox, kind="sandbox.stuck")


def _kill_orphans(name: str, machines: Machines) -> None:
    """End machines of ours that no row wants."""
    # Of all backends: two of them may be one account, and list each other's.
    alive = Sandbox.objects.filter(state__in=ALIVE)
    wanted = set(alive.values_list("op_id", flat=True))
    orphans = {
        machine.sandbox_id
        for machine in machines.values()
        if _is_ours(machine)
        and machine.metadata[gateway.OP_KEY] not in wanted
        and timezone.now() - machine.started_at > ORPHAN_AGE
    }
    for sandbox_id in sorted(orphans & _seen_once.get(name, set()))[:MAX_ORPHANS]:
        logger.warning("backend %s: killing orphan %s", name, sandbox_id)
        try:
            gateway.kill(Sandbox(backend=name, sandbox_id=sandbox_id))
        except SandboxError as error:
            logger.warning("orphan %s: %s", sandbox_id, error)
    _seen_once[name] = orphans


def _is_ours(machine: gateway.Machine) -> bool:
    """Made by this instance, whatever the backend's filter let through."""
    marks = machine.metadata
    ours = marks.get(gateway.INSTANCE_KEY) == settings.INSTANCE_ID
    return ours and gateway.OP_KEY in marks
