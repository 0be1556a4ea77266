"""Connect to a sandbox that is there already, by its id.

One that the person sees is simply opened. One that a backend has and nobody here
knows becomes a row of the team: of the team's own account for whoever may make
things in the team, of the backends that all share only for an administrator of
the whole house. All else is not found.
"""

from collections.abc import Iterator

from django.conf import settings
from django.db import IntegrityError
from django.db.models import Q

from kode_web.teams import access, quotas
from kode_web.teams.models import Role, Team, User, new_code

from . import gateway
from .errors import Gone, Invalid, NotFound, SandboxError
from .models import Sandbox, State
from .steps import record

MAX_ID = 80
OP_ID_LENGTH = 32
MISSING = "There is no such sandbox. Check the id."


def connect(user: User, team: Team, sandbox_id: str) -> Sandbox:
    """The sandbox of that id, ours or a backend's.

    Raises NotFound, also for one of somebody else; QuotaExceeded, Unreachable.
    """
    wanted = sandbox_id.strip()
    if not 0 < len(wanted) <= MAX_ID:
        raise Invalid("Give the id of a sandbox.")
    mine = access.visible(user, Sandbox)
    if known := mine.filter(Q(sandbox_id=wanted) | Q(code=wanted)).first():
        return known
    silent: SandboxError | None = None
    for name in _open_to(user, team):
        try:
            machine = gateway.info(Sandbox(backend=name), sandbox_id=wanted)
        except (Gone, NotFound, Invalid):
            continue
        except SandboxError as error:
            silent = error
            continue
        owner = machine.metadata.get(gateway.INSTANCE_KEY)
        if owner in (None, settings.INSTANCE_ID):
            return _adopt(user, team, name, machine)
    if silent is not None:
        raise silent
    raise NotFound(MISSING)


def _open_to(user: User, team: Team) -> Iterator[str]:
    """The backends at which this person may take what has no row, for this team."""
    may_create = access.role_in(user, team.pk) not in (None, Role.VIEWER)
    for name, one in gateway.backends_of(team).items():
        if user.is_superuser or (one.team_id == team.pk and may_create):
            yield name


def _adopt(user: User, team: Team, backend: str, machine: gateway.Machine) -> Sandbox:
    """A row for a machine that nobody knows; its time is left as it is."""
    is_paused = machine.state == "paused"
    if Sandbox.objects.filter(sandbox_id=machine.sandbox_id).exists():
        raise NotFound(MISSING)
    # The reaper tells ours from orphans by this: a row that holds it, waits for it.
    op_id = machine.metadata.get(gateway.OP_KEY) or new_code()
    if len(op_id) > OP_ID_LENGTH or Sandbox.objects.filter(op_id=op_id).exists():
        raise NotFound(MISSING)
    row = Sandbox(
        op_id=op_id,
        team=team,
        owner=user,
        name=machine.sandbox_id[:80],
        backend=backend,
        sandbox_id=machine.sandbox_id,
        request_key=f"connect-{machine.sandbox_id}"[:64],
        state=State.PAUSED if is_paused else State.RUNNING,
        template=machine.template[:120],
        timeout_s=settings.DEFAULT_TIMEOUT_S,
        metadata={
            name: value
            for name, value in machine.metadata.items()
            if name not in (gateway.INSTANCE_KEY, gateway.OP_KEY)
        },
        started_at=machine.started_at,
        ends_at=machine.ends_at,
    )

    def insert() -> Sandbox:
        row.save()
        record(row, "sandbox.connected", actor=user, sandbox_id=machine.sandbox_id)
        return row

    try:
        return quotas.reserve(
            team,
            what="running sandboxes",
            holding=lambda: Sandbox.objects.filter(team=team).holding(),
            limit=settings.MAX_RUNNING_SANDBOXES,
            make=insert,
        )
    except IntegrityError:
        # Somebody connected to it at the same moment: it is his.
        raise NotFound(MISSING) from None
