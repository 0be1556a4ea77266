"""Snapshots of sandboxes, and sandboxes made from them.

A fork is a snapshot and a sandbox made from it: two rows that are written before
the backend is asked, so that a crash leaves nothing that is not found again.
"""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from kode_web.teams.models import Team, User

from . import actions, gateway, steps
from .actions import CreateRequest
from .errors import Invalid, NotReady, SandboxError
from .models import Sandbox, Snapshot
from .steps import record

logger = logging.getLogger(__name__)
MAX_SNAPSHOTS = 100  # of one team
NAME_LENGTH = 80
State = Snapshot.State
# A call that makes one ends within this, one way or the other.
LATE = timedelta(seconds=120)


def take(user: User, sandbox: Sandbox, name: str) -> Snapshot:
    """Keep the files of a running sandbox. The row may still be `making`."""
    row = _row(user, sandbox, name)
    _soon(partial(_make, row.pk))
    row.refresh_from_db()
    return row


def _row(user: User, sandbox: Sandbox, name: str) -> Snapshot:
    name = " ".join(name.split())
    if not 0 < len(name) <= NAME_LENGTH:
        raise Invalid(f"A name has 1 to {NAME_LENGTH} characters. Choose another.")
    if not sandbox.is_running:
        raise NotReady(f"This sandbox is {sandbox.state}. Only a running one can be.")
    if of_team(sandbox.team).count() >= MAX_SNAPSHOTS:
        raise NotReady(f"The team has {MAX_SNAPSHOTS} snapshots. Delete one first.")
    return Snapshot.objects.create(
        team=sandbox.team,
        sandbox=sandbox,
        owner=user,
        name=name,
        backend=sandbox.backend,
    )


def _make(pk: int) -> None:
    row = Snapshot.objects.get(pk=pk)
    try:
        steps.snapshot(row)
    except SandboxError as error:
        # Its row says so.
        logger.info("snapshot %s: %s", row.code, error)


def _soon(call: Callable[[], None]) -> None:
    """Call it in a thread, and wait for a moment at most; raises what it raises."""
    failed: list[SandboxError] = []

    def work() -> None:
        try:
            call()
        except SandboxError as error:
            failed.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(steps.PATIENCE_S)
    if failed:
        raise failed[0]


def fork(user: User, sandbox: Sandbox, *, key: str) -> Sandbox:
    """Another sandbox with the same files and settings; the same key makes one.

    Processes are not copied, except by a backend whose snapshots hold memory.
    Raises QuotaExceeded, NotReady.
    """
    known = Sandbox.objects.filter(team=sandbox.team, request_key=key).first()
    if known:
        return known
    name = f"{sandbox.name} fork"[:NAME_LENGTH]
    row = _row(user, sandbox, f"before {name}"[:NAME_LENGTH])
    try:
        return actions.create(user, sandbox.team, request_from(row, name=name), key=key)
    except Exception:
        # Refused before the backend was asked: there is nothing to clean up.
        row.delete()
        raise


def request_from(row: Snapshot, *, name: str = "") -> CreateRequest:
    """What to ask for to get the sandbox of a snapshot again."""
    old = row.sandbox
    return CreateRequest(
        name=name,
        backend=row.backend,
        template=old.template,
        origin=row,
        timeout_s=old.timeout_s,
        on_timeout=old.on_timeout,
        command_timeout_s=old.command_timeout_s,
        workdir=old.workdir,
        envs=old.envs,
        metadata=old.metadata,
        internet=old.internet,
    )


def create(user: User, row: Snapshot, *, key: str) -> Sandbox:
    """A sandbox made from a snapshot. Raises NotReady, QuotaExceeded."""
    if row.state != State.READY:
        raise NotReady(f"This snapshot is {row.state}. Try again in a moment.")
    return actions.create(user, row.team, request_from(row), key=key)


def of_team(team: Team) -> QuerySet[Snapshot]:
    """The team's snapshots that are, or will be, there."""
    return Snapshot.objects.filter(team=team, state__in=(State.MAKING, State.READY))


def delete(user: User, row: Snapshot) -> None:
    """Delete it at its backend; sandboxes made from it stay."""
    if row.state == State.MAKING:
        raise NotReady("This snapshot is still being made. Try again in a moment.")
    _soon(partial(_delete, user, row))
    row.refresh_from_db()


def _delete(user: User, row: Snapshot) -> None:
    if row.snapshot_id:
        gateway.delete_snapshot(row.backend, row.snapshot_id)
    deleted = Snapshot.objects.filter(pk=row.pk).exclude(state=State.DELETED)
    if deleted.update(state=State.DELETED):
        record(row.sandbox, "snapshot.deleted", actor=user, name=row.name)


def recover() -> None:
    """Finish what a crash left half made."""
    late = Snapshot.objects.filter(
        state=State.MAKING, created_at__lt=timezone.now() - LATE
    )
    for row in late.select_related("sandbox"):
        try:
            if not row.sandbox.is_running:
                error = "Its sandbox stopped before it was made."
                late.filter(pk=row.pk).update(state=State.FAILED, error=error)
            else:
                steps.snapshot(row)
        except SandboxError as error:
            logger.info("snapshot %s: %s", row.code, error)
