"""What people do with sandboxes, each in the same order: write the row, commit,
call the backend, compare-and-set, record, announce.

A crash between any two steps leaves a row that `reaper` finishes, adopts or
frees. Remote calls run in a few threads of this process, and the caller waits a
moment at most: a page answers even if the backend does not.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import IntegrityError, close_old_connections, transaction
from django.utils import timezone

from kode_web.teams import quotas
from kode_web.teams.models import Team, User

from . import gateway, signals
from .errors import Gone, Invalid, NotReady, SandboxError
from .models import ALIVE, Event, Sandbox, State

logger = logging.getLogger(__name__)
# A local sandbox is there by then; for a slower one the page shows the stage.
PATIENCE_S = 0.8
TOUCH_S = 15
MAX_TIMEOUT_S = 24 * 3600
_pool = ThreadPoolExecutor(8, thread_name_prefix="sandboxes")


@dataclass(frozen=True)
class CreateRequest:
    """What a person asks for. `timeout_s` 0 and empty texts mean the default."""

    name: str = ""
    backend: str = ""
    template: str = "base"
    timeout_s: int = 0
    on_timeout: str = Sandbox.OnTimeout.KILL
    command_timeout_s: int = 60
    workdir: str = ""
    envs: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    internet: bool = True


def create(user: User, team: Team, request: CreateRequest, *, key: str) -> Sandbox:
    """Make a sandbox, or return the one that the same `key` made before.

    The row may still be `creating` when this returns. Raises QuotaExceeded,
    Invalid, Unreachable when no backend is set up.
    """
    if known := Sandbox.objects.filter(team=team, request_key=key).first():
        return known
    backend = gateway.backend(request.backend or settings.DEFAULT_BACKEND)
    sandbox = _row(user, team, request, backend.name, key)
    try:
        sandbox = quotas.reserve(
            team,
            what="running sandboxes",
            holding=lambda: Sandbox.objects.filter(team=team).holding(),
            limit=settings.MAX_RUNNING_SANDBOXES,
            make=lambda: _insert(sandbox, user),
        )
    except IntegrityError:
        # The same form came twice at once, and the other one was first.
        return Sandbox.objects.get(team=team, request_key=key)
    _soon(start, sandbox.pk)
    sandbox.refresh_from_db()
    return sandbox


def _row(
    user: User, team: Team, request: CreateRequest, backend: str, key: str
) -> Sandbox:
    """The unsaved row. Raises Invalid for what no backend would take."""
    timeout_s = request.timeout_s or settings.DEFAULT_TIMEOUT_S
    longest = min(MAX_TIMEOUT_S, settings.MAX_LIFETIME_S)
    if not 0 < timeout_s <= longest:
        raise Invalid(f"The time must be between 1 and {longest} seconds.")
    if any(name.startswith("kode_") for name in request.metadata):
        raise Invalid("Metadata names that begin with kode_ are ours; choose others.")
    return Sandbox(
        team=team,
        owner=user,
        name=request.name or _new_name(team),
        backend=backend,
        request_key=key,
        template=request.template or "base",
        timeout_s=timeout_s,
        on_timeout=request.on_timeout,
        command_timeout_s=request.command_timeout_s,
        workdir=request.workdir,
        envs=request.envs,
        metadata=request.metadata,
        internet=request.internet,
    )


def _new_name(team: Team) -> str:
    return f"sandbox-{Sandbox.objects.filter(team=team).count() + 1}"


def _insert(sandbox: Sandbox, user: User) -> Sandbox:
    sandbox.save()
    record(sandbox, "sandbox.created", actor=user, template=sandbox.template)
    return sandbox


def start(pk: int) -> None:
    """The remote half of `create`: make the machine and move the row on."""
    sandbox = Sandbox.objects.get(pk=pk)
    if sandbox.state != State.CREATING:
        return
    try:
        machine = gateway.create(sandbox)
    except SandboxError as error:
        # The machine may be there all the same if the answer was lost; the
        # reaper looks for its op id before it gives the row up.
        if not error.retry:
            fail(sandbox, str(error))
        else:
            Sandbox.objects.filter(pk=pk, state=State.CREATING).update(error=str(error))
            announce(sandbox)
        return
    adopt(sandbox, machine)


def adopt(sandbox: Sandbox, machine: gateway.Machine) -> None:
    """Take the machine as the row's; one that came too late is killed."""
    taken = Sandbox.objects.move(
        sandbox.pk,
        State.CREATING,
        State.RUNNING,
        sandbox_id=machine.sandbox_id,
        started_at=machine.started_at,
        ends_at=machine.ends_at,
        error="",
    )
    if taken:
        record(sandbox, "sandbox.running")
        announce(sandbox)
        return
    sandbox.refresh_from_db()
    if sandbox.sandbox_id != machine.sandbox_id:
        # It was disposed meanwhile: the row must know what there is to kill.
        Sandbox.objects.filter(pk=sandbox.pk, sandbox_id="").update(
            sandbox_id=machine.sandbox_id
        )
        sandbox.sandbox_id = machine.sandbox_id
        gateway.kill(sandbox)


def fail(sandbox: Sandbox, reason: str) -> None:
    """Give up a row that never got a machine, and free its place."""
    moved = Sandbox.objects.move(
        sandbox.pk,
        State.CREATING,
        State.FAILED,
        error=reason[:500],
        ended_at=timezone.now(),
    )
    if moved:
        record(sandbox, "sandbox.failed", reason=reason[:500])
        announce(sandbox)


def stage(sandbox: Sandbox) -> str:
    """What is going on right now, in a few words; empty when nothing is."""
    words = {
        State.CREATING: (sandbox.error and f"Waiting: {sandbox.error}") or "Starting",
        State.PAUSING: "Pausing",
        State.RESUMING: "Resuming",
        State.KILLING: "Disposing",
    }
    return str(words.get(State(sandbox.state), ""))


def extend(user: User, sandbox: Sandbox, seconds: int) -> None:
    """Let it live `seconds` longer, up to `latest_end`. Raises NotReady."""
    sandbox.refresh_from_db()
    if not sandbox.is_running or sandbox.ends_at is None:
        raise NotReady("Only a running sandbox can be extended.")
    end = min(sandbox.ends_at + timedelta(seconds=seconds), sandbox.latest_end)
    if end <= sandbox.ends_at:
        raise NotReady("It has its longest lifetime already.")
    gateway.set_timeout(sandbox, int((end - timezone.now()).total_seconds()))
    Sandbox.objects.filter(pk=sandbox.pk).update(ends_at=end)
    added_s = int((end - sandbox.ends_at).total_seconds())
    record(sandbox, "sandbox.extended", actor=user, seconds=added_s)
    announce(sandbox)


def pause(user: User | None, sandbox: Sandbox) -> None:
    """Pause it; one that is pausing or paused already is left so."""
    if not Sandbox.objects.move(sandbox.pk, State.RUNNING, State.PAUSING):
        _refuse(sandbox, State.PAUSING, State.PAUSED)
        return
    try:
        gateway.pause(sandbox)
    except SandboxError:
        Sandbox.objects.move(sandbox.pk, State.PAUSING, State.RUNNING)
        raise
    if Sandbox.objects.move(sandbox.pk, State.PAUSING, State.PAUSED):
        record(sandbox, "sandbox.paused", actor=user)
        announce(sandbox)


def resume(user: User | None, sandbox: Sandbox) -> None:
    """Resume it, if the team has room. Raises QuotaExceeded, Gone, NotReady."""

    def take() -> Sandbox:
        if not Sandbox.objects.move(sandbox.pk, State.PAUSED, State.RESUMING):
            _refuse(sandbox, State.RESUMING, State.RUNNING)
        return sandbox

    quotas.reserve(
        sandbox.team,
        what="running sandboxes",
        holding=lambda: (
            Sandbox.objects.filter(team=sandbox.team).exclude(pk=sandbox.pk).holding()
        ),
        limit=settings.MAX_RUNNING_SANDBOXES,
        make=take,
    )
    sandbox.refresh_from_db()
    if sandbox.state != State.RESUMING:
        return
    try:
        machine = gateway.resume(sandbox, sandbox.timeout_s)
    except Gone:
        end(sandbox, reason="It was no longer there to resume.")
        raise
    except SandboxError:
        Sandbox.objects.move(sandbox.pk, State.RESUMING, State.PAUSED)
        raise
    resumed(sandbox, machine, actor=user)


def resumed(
    sandbox: Sandbox, machine: gateway.Machine, *, actor: User | None = None
) -> None:
    """Move a resuming row on."""
    moved = Sandbox.objects.move(
        sandbox.pk, State.RESUMING, State.RUNNING, ends_at=machine.ends_at
    )
    if moved:
        record(sandbox, "sandbox.resumed", actor=actor)
        announce(sandbox)


def _refuse(sandbox: Sandbox, *fine: State) -> None:
    """Raise for a state that does not allow it, except those in `fine`."""
    sandbox.refresh_from_db()
    if sandbox.state in fine:
        return
    if not sandbox.is_alive:
        raise Gone("This sandbox has ended.")
    raise NotReady(f"This sandbox is {sandbox.state}. Try again in a moment.")


def dispose(user: User | None, sandbox: Sandbox) -> None:
    """End it for good; legal from every state, any number of times."""
    with transaction.atomic():
        moved = (
            Sandbox.objects.filter(pk=sandbox.pk, state__in=ALIVE)
            .exclude(state=State.KILLING)
            .update(state=State.KILLING, state_at=timezone.now())
        )
        if moved:
            record(sandbox, "sandbox.disposed", actor=user)
    sandbox.refresh_from_db()
    if moved:
        signals.disposing.send(Sandbox, sandbox=sandbox)
        announce(sandbox)
        _soon(finish, sandbox.pk)
        sandbox.refresh_from_db()


def finish(pk: int) -> None:
    """The remote half of `dispose`: kill until the backend says it is gone."""
    sandbox = Sandbox.objects.get(pk=pk)
    if sandbox.state != State.KILLING:
        return
    if not sandbox.sandbox_id:
        # Created and disposed at once: its machine may come yet, by its op id.
        wanted = {gateway.OP_KEY: sandbox.op_id}
        found = gateway.machines(sandbox.backend, wanted)
        if not found and sandbox.created_at > timezone.now() - timedelta(seconds=120):
            return
        sandbox.sandbox_id = found[0].sandbox_id if found else ""
    if sandbox.sandbox_id:
        gateway.kill(sandbox)
    end(sandbox)


def end(sandbox: Sandbox, *, reason: str = "") -> None:
    """Mark a row whose machine is gone; its record stays."""
    moved = Sandbox.objects.filter(pk=sandbox.pk, state__in=ALIVE).update(
        state=State.GONE,
        state_at=timezone.now(),
        ended_at=timezone.now(),
        error=reason[:500],
    )
    if moved:
        gateway.forget(sandbox)
        sandbox.terminals.filter(closed_at=None).update(closed_at=timezone.now())
        record(sandbox, "sandbox.gone", reason=reason[:500])
        announce(sandbox)


def record(
    sandbox: Sandbox, kind: str, *, actor: User | None = None, **data: Any
) -> Event:
    """Append to the sandbox's timeline."""
    return Event.objects.create(sandbox=sandbox, kind=kind, actor=actor, data=data)


def touch(sandbox: Sandbox) -> None:
    """Note that it is in use; a write every TOUCH_S at most."""
    now = timezone.now()
    Sandbox.objects.filter(
        pk=sandbox.pk, used_at__lt=now - timedelta(seconds=TOUCH_S)
    ).update(used_at=now)


def group(code: str) -> str:
    """The channel layer's group of a sandbox's watchers."""
    return f"sandbox.{code}"


def announce(sandbox: Sandbox) -> None:
    """Nudge the watchers once this is committed; a lost nudge only delays."""

    def send() -> None:
        layer = get_channel_layer()
        if layer is None:
            return
        try:
            async_to_sync(layer.group_send)(group(sandbox.code), {"type": "changed"})
        except OSError:
            logger.warning("no nudge for sandbox %s", sandbox.code)

    transaction.on_commit(send)


def _soon(call: Callable[[int], None], pk: int) -> None:
    """Run in a thread after the commit, and wait for a moment at most."""
    if transaction.get_connection().in_atomic_block:
        transaction.on_commit(lambda: _submit(call, pk) and None)
        return
    future = _submit(call, pk)
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    done.wait(PATIENCE_S)


def _submit(call: Callable[[int], None], pk: int) -> Future[None]:
    return _pool.submit(_quietly, call, pk)


def _quietly(call: Callable[[int], None], pk: int) -> None:
    """The outermost frame of a thread: log, and leave the row to the reaper."""
    close_old_connections()
    try:
        call(pk)
    except SandboxError as error:
        logger.warning("%s of sandbox row %s: %s", call.__name__, pk, error)
    except Exception:
        logger.exception("%s of sandbox row %s failed", call.__name__, pk)
    finally:
        close_old_connections()
