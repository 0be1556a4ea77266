"""How a sandbox's row moves on: the remote half of each action.

Each step calls the backend, then moves the row by compare-and-set together with
its event. A crash between any two leaves a row that `reaper` finishes, adopts or
frees, by these same functions.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import connection, transaction
from django.utils import timezone

from kode_web.teams.models import User

from . import gateway
from .errors import Gone, SandboxError, Unreachable
from .models import ALIVE, Event, Sandbox, Snapshot, State

logger = logging.getLogger(__name__)
# A local sandbox is there by then; for a slower one the page shows the stage.
PATIENCE_S = 0.8
# A crash is told from a slow call by this: no call of the backend takes longer.
LATE = timedelta(seconds=120)
# Calls under way at each backend: a slow one never keeps the other waiting.
AT_ONCE = 8
_loop: asyncio.AbstractEventLoop | None = None
_places: dict[str, threading.BoundedSemaphore] = {}


def start(sandbox: Sandbox) -> None:
    """The remote half of `create`: make the machine and move the row on."""
    sandbox.refresh_from_db()
    if sandbox.state == State.KILLING:
        # Disposed before the backend was ever asked: there is nothing to end.
        end(sandbox)
    if sandbox.state != State.CREATING:
        return
    try:
        if sandbox.origin is not None:
            snapshot(sandbox.origin)
        machine = gateway.create(sandbox)
    except Unreachable as error:
        # The machine may be there all the same, with its answer lost: the reaper
        # looks for its op id before it gives the row up.
        Sandbox.objects.filter(pk=sandbox.pk, state=State.CREATING).update(
            error=str(error)[:500], state_at=timezone.now()
        )
        announce(sandbox)
    except SandboxError as error:
        fail(sandbox, str(error))
    else:
        adopt(sandbox, machine)


def snapshot(row: Snapshot) -> None:
    """Make a snapshot that is not made yet. Raises SandboxError when it failed.

    One whose answer was lost is looked for first: a label is made once.
    """
    row.refresh_from_db()
    if row.state == Snapshot.State.READY:
        return
    if row.state != Snapshot.State.MAKING:
        raise Gone(f"The snapshot {row.name} is {row.state}: {row.error}")
    try:
        made = gateway.find_snapshot(row.sandbox, row.label) or gateway.take_snapshot(
            row.sandbox, row.label
        )
    except Unreachable as error:
        Snapshot.objects.filter(pk=row.pk).update(error=str(error)[:500])
        raise
    except SandboxError as error:
        Snapshot.objects.filter(pk=row.pk, state=Snapshot.State.MAKING).update(
            state=Snapshot.State.FAILED, error=str(error)[:500]
        )
        raise
    moved = Snapshot.objects.filter(pk=row.pk, state=Snapshot.State.MAKING).update(
        state=Snapshot.State.READY, snapshot_id=made, error=""
    )
    row.refresh_from_db()
    if moved:
        record(row.sandbox, "snapshot.made", actor=row.owner, name=row.name)


def adopt(sandbox: Sandbox, machine: gateway.Machine) -> None:
    """Take the machine as the row's; one that came too late is killed."""
    taken = step(
        sandbox,
        (State.CREATING,),
        State.RUNNING,
        "sandbox.running",
        fields={
            "sandbox_id": machine.sandbox_id,
            "started_at": machine.started_at,
            "ends_at": machine.ends_at,
            "error": "",
        },
    )
    sandbox.refresh_from_db()
    if taken or sandbox.sandbox_id == machine.sandbox_id:
        return
    # It was given up or disposed meanwhile: the row must know what to kill.
    Sandbox.objects.filter(pk=sandbox.pk, sandbox_id="").update(
        sandbox_id=machine.sandbox_id
    )
    sandbox.sandbox_id = machine.sandbox_id
    gateway.kill(sandbox)
    if sandbox.state == State.KILLING:
        end(sandbox)


def fail(sandbox: Sandbox, reason: str) -> None:
    """Give up a row that never got a machine, and free its place."""
    fields = {"error": reason[:500], "ended_at": timezone.now()}
    failed = step(
        sandbox,
        (State.CREATING,),
        State.FAILED,
        "sandbox.failed",
        fields=fields,
        reason=reason[:500],
    )
    sandbox.refresh_from_db()
    if not failed and sandbox.state == State.KILLING and not sandbox.sandbox_id:
        end(sandbox)


def step(
    sandbox: Sandbox,
    old: Collection[State],
    new: State,
    kind: str,
    *,
    fields: dict[str, Any] | None = None,
    actor: User | None = None,
    **data: Any,
) -> bool:
    """Compare-and-set the state with its event; False when another was first."""
    with transaction.atomic():
        moved = Sandbox.objects.filter(pk=sandbox.pk, state__in=old).update(
            state=new, state_at=timezone.now(), **(fields or {})
        )
        if moved:
            if new == State.RUNNING:
                # What listens after a pause may be another thing: ask again.
                sandbox.shared_ports.all().delete()
            record(sandbox, kind, actor=actor, **data)
            announce(sandbox)
    return moved == 1


def pause(user: User | None, sandbox: Sandbox) -> None:
    """The remote half of `pause`."""
    try:
        gateway.pause(sandbox)
    except Gone:
        end(sandbox, reason="It was no longer there to pause.")
        raise
    except Unreachable:
        # It may be paused all the same: the reaper asks.
        raise
    except SandboxError:
        Sandbox.objects.move(sandbox.pk, State.PAUSING, State.RUNNING)
        announce(sandbox)
        raise
    step(sandbox, (State.PAUSING,), State.PAUSED, "sandbox.paused", actor=user)


def resume(user: User | None, sandbox: Sandbox) -> None:
    """The remote half of `resume`."""
    try:
        machine = gateway.resume(sandbox, sandbox.timeout_s)
    except Gone:
        end(sandbox, reason="It was no longer there to resume.")
        raise
    except Unreachable:
        # It may run all the same: the reaper asks.
        raise
    except SandboxError:
        Sandbox.objects.move(sandbox.pk, State.RESUMING, State.PAUSED)
        announce(sandbox)
        raise
    fields = {"started_at": timezone.now(), "ends_at": machine.ends_at}
    moved = step(
        sandbox,
        (State.RESUMING,),
        State.RUNNING,
        "sandbox.resumed",
        fields=fields,
        actor=user,
    )
    if not moved:
        # Disposed meanwhile, and the kill may have come before the machine woke.
        finish(sandbox)


def extend(user: User | None, end_at: datetime, added_s: int, sandbox: Sandbox) -> None:
    """The remote half of `extend`. Where its answer is lost, the reaper reads it."""
    gateway.set_timeout(sandbox, int((end_at - timezone.now()).total_seconds()))
    rows = Sandbox.objects.filter(pk=sandbox.pk, state=State.RUNNING)
    if rows.update(ends_at=end_at):
        record(sandbox, "sandbox.extended", actor=user, seconds=added_s)
        announce(sandbox)


def finish(sandbox: Sandbox) -> None:
    """The remote half of `dispose`: kill until the backend says it is gone."""
    sandbox.refresh_from_db()
    if sandbox.state != State.KILLING:
        return
    if not sandbox.sandbox_id:
        # Disposed while it was made: its machine may come yet, by its op id.
        wanted = {gateway.OP_KEY: sandbox.op_id}
        found = gateway.machines(sandbox.backend, wanted)
        if not found and timezone.now() - sandbox.created_at < LATE:
            return
        sandbox.sandbox_id = found[0].sandbox_id if found else ""
    if sandbox.sandbox_id:
        gateway.kill(sandbox)
    end(sandbox)


def end(sandbox: Sandbox, *, reason: str = "") -> None:
    """Mark a row whose machine is gone; its record stays."""
    fields = {"ended_at": timezone.now(), "error": reason[:500]}
    moved = step(
        sandbox, ALIVE, State.GONE, "sandbox.gone", fields=fields, reason=reason[:500]
    )
    if moved:
        gateway.forget(sandbox)
        sandbox.terminals.filter(closed_at=None).update(closed_at=timezone.now())
    sandbox.refresh_from_db()


def record(
    sandbox: Sandbox, kind: str, *, actor: User | None = None, **data: Any
) -> Event:
    """Append to the sandbox's timeline."""
    return Event.objects.create(sandbox=sandbox, kind=kind, actor=actor, data=data)


def group(code: str) -> str:
    """The channel layer's group of a sandbox's watchers."""
    return f"sandbox.{code}"


def team_group(pk: int) -> str:
    """The channel layer's group of who looks at a team's list."""
    return f"team-sandboxes.{pk}"


def serve_from(loop: asyncio.AbstractEventLoop) -> None:
    """Name the loop that serves sockets in this process: nudges go through it."""
    global _loop
    _loop = loop


def announce(sandbox: Sandbox) -> None:
    """Nudge the watchers once this is committed; a lost nudge only delays."""

    def send() -> None:
        layer = get_channel_layer()
        if layer is None:
            return
        nudge = _nudge(layer, sandbox)
        if _loop is not None and _loop.is_running():
            # A layer inside this process wakes only whom its own loop wakes.
            asyncio.run_coroutine_threadsafe(nudge, _loop)
            return
        try:
            async_to_sync(_awaited)(nudge)
        except OSError:
            logger.warning("no nudge for sandbox %s", sandbox.code)

    transaction.on_commit(send)


async def _nudge(layer: Any, sandbox: Sandbox) -> None:
    for name in (group(sandbox.code), team_group(sandbox.team_id)):
        await layer.group_send(name, {"type": "changed"})


async def _awaited(nudge: Coroutine[Any, Any, None]) -> None:
    await nudge


def spawn(work: Coroutine[Any, Any, None]) -> None:
    """Let it run on: on this process's loop, or without one in a thread of its own."""
    if _loop is not None and _loop.is_running():
        asyncio.run_coroutine_threadsafe(work, _loop)
        return
    threading.Thread(target=asyncio.run, args=(work,), daemon=True).start()


def soon(call: Callable[[Sandbox], None], sandbox: Sandbox) -> None:
    """Run in a thread after the commit, and wait for a moment at most.

    What goes wrong within that moment is raised here.
    """
    if transaction.get_connection().in_atomic_block:
        transaction.on_commit(lambda: _submit(call, sandbox) and None)
        return
    with contextlib.suppress(TimeoutError):
        _submit(call, sandbox).result(PATIENCE_S)


def _submit(call: Callable[[Sandbox], None], sandbox: Sandbox) -> Future[None]:
    """Begin in a thread of its own, which no stopping process waits for."""
    future: Future[None] = Future()
    copy = Sandbox.objects.get(pk=sandbox.pk)
    run = partial(_in_thread, call, copy, future)
    threading.Thread(target=run, name=f"sandbox-{copy.pk}", daemon=True).start()
    return future


def _in_thread(
    call: Callable[[Sandbox], None], sandbox: Sandbox, future: Future[None]
) -> None:
    """The outermost frame of a thread: log, and leave the row to the reaper."""
    place = _places.setdefault(sandbox.backend, threading.BoundedSemaphore(AT_ONCE))
    with place:
        try:
            call(sandbox)
            future.set_result(None)
        except SandboxError as error:
            logger.warning("sandbox %s: %s", sandbox.code, error)
            future.set_exception(error)
        except Exception as error:
            logger.exception("sandbox %s", sandbox.code)
            future.set_exception(error)
        finally:
            connection.close()
