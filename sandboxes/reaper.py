"""Keeps rows and machines in step: finishes what a crash left, frees what is over.

`run_once` is safe to run at any time, in any number of processes: one has the lease,
and each change is a compare-and-set. It never touches a machine of another instance,
and does nothing at all when the backend's list cannot be had.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone

from . import exec, gateway, keepalive, leases, retention, snapshots, steps
from .errors import Gone, SandboxError
from .models import ALIVE, Event, Orphan, Sandbox, State

logger = logging.getLogger(__name__)
# A create call ends within this, one way or the other.
GRACE = steps.LATE
# Transient states that no process works on any more.
STUCK = timedelta(seconds=30)
# A create call that failed with an unclear answer: its machine is listed by then.
UNCLEAR = timedelta(seconds=20)
# Someone should look at a machine that cannot be ended for so long.
ALARM = timedelta(minutes=5)
# Machines without a row, and rows without a machine: ended when seen twice, the
# machines when old enough too, and a few in a round, whatever a backend may say.
ORPHAN_AGE = timedelta(seconds=120)
MAX_ENDED, MAX_ENDED_SHARE = 5, 0.2
TASK, HOLDER = "reaper", uuid4().hex
LEASE = timedelta(seconds=60)

type Machines = dict[str, gateway.Machine]


@dataclass
class Round:
    """What a backend has, and how many rows may still be ended for what it lacks."""

    backend: str
    machines: Machines
    budget: int


def run_once() -> None:
    """One round over all rows and backends; none while another process does it."""
    if not leases.hold(TASK, HOLDER, LEASE):
        return
    _alarm()
    exec.recover()
    snapshots.recover()
    backends = gateway.backends()
    _strays(backends)
    for name in backends:
        if not leases.hold(TASK, HOLDER, LEASE):
            return
        try:
            machines = {m.sandbox_id: m for m in gateway.machines(name)}
        except SandboxError as error:
            # A list that failed, or broke off, says nothing about anything.
            logger.info("backend %s: %s", name, error)
            continue
        rows = list(Sandbox.objects.filter(backend=name, state__in=ALIVE))
        budget = max(MAX_ENDED, int(len(rows) * MAX_ENDED_SHARE))
        this = Round(name, machines, budget)
        for sandbox in rows:
            _follow(sandbox, this)
        _kill_orphans(this)
    keepalive.run_once()
    retention.run_once()


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
    leases.release(TASK, HOLDER)


def _follow(sandbox: Sandbox, this: Round) -> None:
    """Bring one row in step with its machine."""
    machine = this.machines.get(sandbox.sandbox_id) or next(
        (
            m
            for m in this.machines.values()
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
                _settled(sandbox, machine, this)
            case State.PAUSING | State.RESUMING:
                _moving(sandbox, machine, this)
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


def _asked(sandbox: Sandbox, this: Round) -> gateway.Machine | None:
    """The machine by a question about it alone; None when it is not there.

    The list may be cut, or older than the row. A machine that is missed for the
    first time is asked for again in the next round, unless its time was over.
    """
    try:
        return gateway.info(sandbox)
    except Gone:
        pass
    if sandbox.missed_at is None and not _is_over(sandbox):
        logger.warning("sandbox %s is missing at %s", sandbox.code, this.backend)
        Sandbox.objects.filter(pk=sandbox.pk).update(missed_at=timezone.now())
    elif this.budget > 0 or _is_over(sandbox):
        this.budget -= 1
        is_over = _is_over(sandbox)
        steps.end(
            sandbox,
            reason="Its time was over." if is_over else "The backend no longer has it.",
        )
    return None


def _is_over(sandbox: Sandbox) -> bool:
    """Whether its machine was to end by itself by now."""
    if sandbox.pauses_at_end or sandbox.ends_at is None:
        return False
    return sandbox.ends_at <= timezone.now() + timedelta(seconds=5)


def _strays(backends: Collection[str]) -> None:
    """Free rows without a machine whose backend is not set up any more.

    Those with a machine wait: the backend may come back with its key.
    """
    waiting = Sandbox.objects.filter(
        state__in=(State.CREATING, State.KILLING),
        sandbox_id="",
        created_at__lt=timezone.now() - GRACE,
    )
    for sandbox in waiting.exclude(backend__in=backends):
        if sandbox.state == State.KILLING:
            steps.end(sandbox)
        else:
            steps.fail(sandbox, "Its backend is not set up any more.")


def _settled(sandbox: Sandbox, machine: gateway.Machine | None, this: Round) -> None:
    """Follow what the machine did by itself."""
    machine = machine or _asked(sandbox, this)
    if machine is None:
        return
    if sandbox.missed_at is not None:
        Sandbox.objects.filter(pk=sandbox.pk).update(missed_at=None)
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


def _moving(sandbox: Sandbox, machine: gateway.Machine | None, this: Round) -> None:
    """Settle a pause or a resume that no process works on any more."""
    if _age(sandbox) < (GRACE if sandbox.state == State.RESUMING else STUCK):
        return
    machine = machine or _asked(sandbox, this)
    if machine is None:
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


def orphans(machines: Iterable[gateway.Machine]) -> list[gateway.Machine]:
    """Those of ours that no row wants, once they are old enough to have one."""
    # Of all backends: two of them may be one account, and list each other's.
    alive = Sandbox.objects.filter(state__in=ALIVE)
    wanted = set(alive.values_list("op_id", flat=True))
    return [
        machine
        for machine in machines
        if is_ours(machine)
        and machine.metadata[gateway.OP_KEY] not in wanted
        and timezone.now() - machine.started_at > ORPHAN_AGE
    ]


def _kill_orphans(this: Round) -> None:
    """End machines of ours that no row wanted in the round before either."""
    found = {m.sandbox_id for m in orphans(this.machines.values())}
    sightings = Orphan.objects.filter(backend=this.backend)
    sightings.exclude(sandbox_id__in=found).delete()
    known = set(sightings.values_list("sandbox_id", flat=True))
    for sandbox_id in sorted(found & known)[:MAX_ENDED]:
        logger.warning("backend %s: killing orphan %s", this.backend, sandbox_id)
        try:
            gateway.kill(Sandbox(backend=this.backend, sandbox_id=sandbox_id))
        except SandboxError as error:
            logger.warning("orphan %s: %s", sandbox_id, error)
    Orphan.objects.bulk_create(
        [Orphan(backend=this.backend, sandbox_id=one) for one in sorted(found - known)],
        ignore_conflicts=True,
    )


def is_ours(machine: gateway.Machine) -> bool:
    """Made by this instance, whatever the backend's filter let through."""
    marks = machine.metadata
    ours = marks.get(gateway.INSTANCE_KEY) == settings.INSTANCE_ID
    return ours and gateway.OP_KEY in marks
