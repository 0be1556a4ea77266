"""Keys and addresses of backends: tried before they are kept, never shown again."""

import logging
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError
from django.http import Http404
from django.utils import timezone

from kode_web.teams import access
from kode_web.teams.models import Role, Team, User

from . import gateway
from .errors import Invalid, NotReady, SandboxError, Unreachable
from .gateway import Backend
from .models import BackendRow, Sandbox
from .models.backend import KEY

logger = logging.getLogger(__name__)
KEEPERS = (Role.ADMIN, Role.OWNER)
# Machines that are looked for when a key or an address changes.
LOOKED_FOR = 3
WRONG_KEY = "This is not a key: 8 to 500 characters without spaces."
ANOTHER = (
    "There is none of the sandboxes that run there now: this looks like another "
    "account. Dispose them first, or give a key of the same account."
)


def may_keep(user: User, team_id: int | None) -> bool:
    """Whether the person keeps this backend: everybody's is the administrator's."""
    if user.is_superuser:
        return True
    return team_id is not None and access.role_in(user, team_id) in KEEPERS


def may_set_key(user: User, team: Team) -> bool:
    """Whether the person keeps the keys of the team's own accounts."""
    return access.role_in(user, team.pk) in KEEPERS


def kept_by(user: User) -> list[Backend]:
    """The backends that the person keeps."""
    return [one for one in gateway.backends().values() if may_keep(user, one.team_id)]


def get(user: User, name: str) -> Backend:
    """The backend of that name, if the person keeps it. Raises Http404."""
    found = gateway.backends().get(name)
    if found is None or not may_keep(user, found.team_id):
        raise Http404
    return found


def of_team(team: Team) -> list[BackendRow]:
    """The team's own accounts, also those that still lack a key."""
    return list(BackendRow.objects.filter(team=team).select_related("key_by"))


def section(team: Team) -> dict[str, Any]:
    """What the section of the team's page shows of its accounts."""
    rows = of_team(team)
    has_own = any(row.name == own_name(team) for row in rows)
    return {"rows": rows, "slug": team.slug, "can_add": bool(rows) and not has_own}


def clean_key(text: str) -> str:
    """The key as it was meant. Raises Invalid."""
    key = text.strip()
    if not KEY.fullmatch(key):
        raise Invalid(WRONG_KEY)
    return key


def check(row: BackendRow) -> None:
    """Try a changed row out. Raises Refused, Invalid, NotReady, Unreachable.

    Refuses what leads to another account than that of its live sandboxes: they
    would count as gone, and go on there.
    """
    alive = Sandbox.objects.alive().filter(backend=row.name).exclude(sandbox_id="")
    ids = list(alive.order_by("-pk").values_list("sandbox_id", flat=True)[:LOOKED_FOR])
    missing = gateway.try_out(Backend.of(row), ids)
    if ids and len(missing) == len(ids):
        raise NotReady(ANOTHER)


def own_name(team: Team) -> str:
    """The name of the account that a team brings itself."""
    return f"team-{team.pk}"


def set_key(
    user: User, team: Team, text: str, *, name: str = "", is_sure: bool = False
) -> BackendRow:
    """Keep the team's own key, once its backend takes it.

    `name` is that of one of the team's backends; without one it is its account at
    E2B. Raises Refused, Invalid, NotReady, and Unreachable unless `is_sure`.
    """
    if not may_set_key(user, team):
        raise PermissionDenied("Only an administrator of the team changes its keys.")
    row = _row(team, name)
    row.api_key = clean_key(text)
    try:
        row.full_clean()
        check(row)
    except Unreachable:
        if not is_sure:
            raise
    except ValidationError as error:
        raise Invalid(" ".join(error.messages)) from error
    sign(row, user)
    try:
        row.save()
    except IntegrityError as error:
        raise NotReady("Somebody else set it at this moment. Look again.") from error
    return row


def _row(team: Team, name: str) -> BackendRow:
    """The team's backend of that name; a new one of its own. Raises Http404."""
    known = BackendRow.objects.filter(team=team, name=name or own_name(team)).first()
    if known is not None:
        return known
    if name and name != own_name(team):
        raise Http404
    return BackendRow(
        name=own_name(team),
        title=f"{settings.E2B_DOMAIN} of {team.name}"[:80],
        kind=BackendRow.Kind.E2B,
        domain=settings.E2B_DOMAIN,
        team=team,
    )


def sign(row: BackendRow, user: User) -> None:
    """Note who gave the key, in the row and in the log."""
    row.key_by, row.key_at = user, timezone.now()
    logger.info("backend %s: key set by user %s", row.name, user.pk)


def remove_key(user: User, team: Team, name: str) -> None:
    """Take the team's key out again. Raises NotReady while it is used, Http404."""
    if not may_set_key(user, team):
        raise PermissionDenied("Only an administrator of the team changes its keys.")
    row = BackendRow.objects.filter(team=team, name=name).first()
    if row is None:
        raise Http404
    if name == own_name(team):
        row.delete()
    else:
        # An administrator of the house made it: its address stays.
        if reason := row.in_use():
            raise NotReady(f"The key cannot be removed: {reason}")
        row.api_key, row.key_by, row.key_at = "", None, None
        row.save()
    logger.info("backend %s: key removed by user %s", name, user.pk)


def blockers(rows: Iterable[BackendRow]) -> list[str]:
    """Why these cannot be deleted, one line each; empty when they can."""
    return [f"{row}: {reason}" for row in rows if (reason := row.in_use())]


def tried(row: BackendRow) -> SandboxError | None:
    """What is wrong with a row's address and key, None when nothing is."""
    try:
        check(row)
    except SandboxError as error:
        return error
    return None
