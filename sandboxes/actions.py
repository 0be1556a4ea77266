"""What people do with sandboxes, each in the same order: write the row, commit,
call the backend, compare-and-set, record, announce.

A crash between any two steps leaves a row that `reaper` finishes, adopts or
frees. Remote calls run in a few threads of this process, and the caller waits a
moment at most: a page answers even if the backend does not.
"""

import contextlib
import re
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from kode_web.teams import quotas
from kode_web.teams.models import Team, User

from . import gateway, signals, steps
from .errors import Gone, Invalid, NotReady, SandboxError
from .models import ALIVE, Sandbox, Snapshot, State
from .steps import announce, group, record, soon, step

__all__ = [
    "CreateRequest",
    "announce",
    "create",
    "dispose",
    "extend",
    "group",
    "pause",
    "record",
    "resume",
    "stage",
    "touch",
]
TOUCH_S = 15
MAX_TIMEOUT_S = 24 * 3600
MAX_KEY = 64
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
    # Made from this instead of the template.
    origin: Snapshot | None = None


def create(user: User, team: Team, request: CreateRequest, *, key: str) -> Sandbox:
    """Make a sandbox, or return the one that the same `key` made before.

    The row may still be `creating` when this returns. Raises QuotaExceeded,
    Invalid, NotReady, Unreachable when no backend is set up.
    """
    if not 0 < len(key) <= MAX_KEY:
        raise Invalid(f"A request's key has 1 to {MAX_KEY} characters.")
    if known := Sandbox.objects.filter(team=team, request_key=key).first():
        return known
    backend = gateway.choose(team, request.backend)
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
    with contextlib.suppress(SandboxError):
        soon(steps.start, sandbox)
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
    for name, value in request.envs.items():
        if not ENV_NAME.fullmatch(name) or "\0" in value:
            raise Invalid(f"{name!r} cannot be an environment variable.")
    return Sandbox(
        team=team,
        owner=user,
        name=request.name[:80] or _new_name(team),
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
        origin=request.origin,
    )


def _new_name(team: Team) -> str:
    return f"sandbox-{Sandbox.objects.filter(team=team).count() + 1}"


def _insert(sandbox: Sandbox, user: User) -> Sandbox:
    sandbox.save()
    record(sandbox, "sandbox.created", actor=user, template=sandbox.template)
    return sandbox


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
    """Let it live `seconds` longer, up to `latest_end`. Raises NotReady, Invalid.

    May return before the backend has said so.
    """
    if seconds <= 0:
        raise Invalid("Extending takes a number of seconds above 0.")
    sandbox.refresh_from_db()
    if not sandbox.is_running or sandbox.ends_at is None:
        raise NotReady("Only a running sandbox can be extended.")
    end_at = min(sandbox.ends_at + timedelta(seconds=seconds), sandbox.latest_end)
    added_s = round((end_at - sandbox.ends_at).total_seconds())
    if added_s <= 0:
        raise NotReady("It has its longest lifetime already.")
    soon(partial(steps.extend, user, end_at, added_s), sandbox)
    sandbox.refresh_from_db()


def pause(user: User | None, sandbox: Sandbox) -> None:
    """Pause it; one that is pausing or paused already is left so.

    May return while it is still `pausing`, at a backend that takes its time.
    """
    if not Sandbox.objects.move(sandbox.pk, State.RUNNING, State.PAUSING):
        _refuse(sandbox, State.PAUSING, State.PAUSED)
        return
    announce(sandbox)
    soon(partial(steps.pause, user), sandbox)
    sandbox.refresh_from_db()


def resume(user: User | None, sandbox: Sandbox) -> None:
    """Resume it, if the team has room. Raises QuotaExceeded, Gone, NotReady.

    Its lifetime starts anew. May return while it is still `resuming`.
    """

    def take() -> bool:
        return Sandbox.objects.move(sandbox.pk, State.PAUSED, State.RESUMING)

    others = Sandbox.objects.filter(team=sandbox.team).exclude(pk=sandbox.pk)
    taken = quotas.reserve(
        sandbox.team,
        what="running sandboxes",
        holding=others.holding,
        limit=settings.MAX_RUNNING_SANDBOXES,
        make=take,
    )
    if not taken:
        _refuse(sandbox, State.RESUMING, State.RUNNING)
        return
    announce(sandbox)
    soon(partial(steps.resume, user), sandbox)
    sandbox.refresh_from_db()


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
    others = [state for state in ALIVE if state != State.KILLING]
    if step(sandbox, others, State.KILLING, "sandbox.disposed", actor=user):
        sandbox.refresh_from_db()
        signals.disposing.send(Sandbox, sandbox=sandbox)
        # What goes wrong is finished by the reaper, and no matter of the person's.
        with contextlib.suppress(SandboxError):
            soon(steps.finish, sandbox)
    sandbox.refresh_from_db()


def touch(sandbox: Sandbox) -> None:
    """Note that it is in use; a write every TOUCH_S at most."""
    now = timezone.now()
    Sandbox.objects.filter(
        pk=sandbox.pk, used_at__lt=now - timedelta(seconds=TOUCH_S)
    ).update(used_at=now)
