"""Who may do what: the only door from a person to a row.

A row that someone may not see and a row that does not exist are the same answer,
404. What someone sees but may not change is 403.
"""

from enum import StrEnum
from typing import Protocol, cast

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404

from .models import Membership, Role, Team, User

type Person = User | AnonymousUser


class May(StrEnum):
    """What a person may do with a sandbox or an agent."""

    VIEW = "view"  # watch the terminal, read chat and files, see activity
    DRIVE = "drive"  # type, run commands, edit files, chat, approve
    MANAGE = "manage"  # pause, resume, extend, rename, share, dispose


class Owned(Protocol):
    """A row that belongs to a team and was made by a person."""

    team_id: int
    owner_id: int | None


RIGHTS: dict[str, frozenset[May]] = {
    Role.VIEWER: frozenset({May.VIEW}),
    Role.MEMBER: frozenset({May.VIEW, May.DRIVE}),
    Role.ADMIN: frozenset(May),
    Role.OWNER: frozenset(May),
}


def role_in(user: Person, team_id: int) -> Role | None:
    """The person's role in the team, None for a stranger."""
    if not user.is_authenticated or not user.is_active:
        return None
    found = (
        Membership.objects.filter(team_id=team_id, user_id=user.pk)
        .values_list("role", flat=True)
        .first()
    )
    return Role(found) if found else None


def rights(user: Person, row: Owned) -> frozenset[May]:
    """All that the person may do with the row; empty for a stranger.

    A member manages what he made himself.
    """
    role = role_in(user, row.team_id)
    if role is None:
        return frozenset()
    if role == Role.MEMBER and row.owner_id == user.pk:
        return frozenset(May)
    return RIGHTS[role]


def visible[M: models.Model](
    user: Person, model: type[M], *, teams: list[int] | None = None
) -> models.QuerySet[M]:
    """All rows of a team-owned model that the person may see.

    Whoever asks often for one page gives `team_ids`: of one team, which is the usual,
    an index gives its rows in their order.
    """
    rows = model._default_manager.all()
    if not user.is_authenticated or not user.is_active:
        return rows.none()
    if teams is not None:
        return rows.filter(team_id__in=teams)
    memberships = Membership.objects.filter(user_id=user.pk)
    return rows.filter(team_id__in=memberships.values("team_id"))


def team_ids(user: User) -> list[int]:
    """The teams of a person now."""
    found = Membership.objects.filter(user_id=user.pk)
    return list(found.values_list("team_id", flat=True))


def get[M: models.Model](
    user: Person, model: type[M], code: str, may: May = May.VIEW
) -> M:
    """The row with that code. Raises Http404, or PermissionDenied when only seen."""
    row = visible(user, model).filter(code=code).first()
    if row is None:
        raise Http404
    if may not in rights(user, cast(Owned, row)):
        raise PermissionDenied(f"Your role in this team does not let you {may} this.")
    return row


def team_for(user: User, slug: str | None = None, *, create: bool = False) -> Team:
    """A team of the person by slug, else his own team.

    With `create` his role must allow making things in it. Raises Http404 or
    PermissionDenied.
    """
    teams = Team.objects.filter(memberships__user=user)
    team = teams.filter(slug=slug).first() if slug else own_team(user)
    if team is None:
        raise Http404
    if create and role_in(user, team.pk) == Role.VIEWER:
        raise PermissionDenied("A viewer cannot create anything in this team.")
    return team


def teams_to_create_in(user: User) -> models.QuerySet[Team]:
    """The teams in which the person may make things, his own first."""
    may = Membership.objects.filter(user=user).exclude(role=Role.VIEWER)
    teams = Team.objects.filter(pk__in=may.values("team_id"))
    return teams.order_by(models.F("personal_for").asc(nulls_last=True), "name")


def own_team(user: User) -> Team:
    """The person's own team, made at first use."""
    team, made = Team.objects.get_or_create(
        personal_for=user,
        defaults={"name": user.display_name, "slug": f"personal-{user.pk}"},
    )
    if made:
        Membership.objects.get_or_create(
            team=team, user=user, defaults={"role": Role.OWNER}
        )
    return team
