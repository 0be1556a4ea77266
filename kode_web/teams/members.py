"""Who is in a team: adding, changing and removing, each under the same rules."""

from dataclasses import dataclass

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404
from django.utils.text import slugify

from . import accounts
from .access import role_in
from .models import Membership, Role, Team, User, new_code

KEEPERS = (Role.ADMIN, Role.OWNER)


class NotAdded(Exception):
    """A person could not be added; says why."""


@dataclass(frozen=True)
class Added:
    """A new member; `link` signs in once when the account is new as well."""

    user: User
    link: str


def grantable(role: Role | None) -> list[Role]:
    """The roles that a member with this role may give, weakest first."""
    if role == Role.OWNER:
        return list(Role)
    return [Role.VIEWER, Role.MEMBER, Role.ADMIN] if role == Role.ADMIN else []


def may_change(role: Role | None, row: Membership) -> bool:
    """Whether someone with this role may change or remove the member.

    A person's own team stays his, and only an owner touches an owner.
    """
    if role not in KEEPERS or row.team.personal_for_id == row.user_id:
        return False
    return role == Role.OWNER or row.role != Role.OWNER


def create(user: User, name: str) -> Team:
    """A new team of which the person is the owner."""
    slug = slugify(name)[:40].strip("-") or "team"
    with transaction.atomic():
        if Team.objects.filter(slug=slug).exists() or slug.startswith("personal-"):
            slug = f"{slug}-{new_code()[:6]}"
        team = Team.objects.create(name=name, slug=slug)
        Membership.objects.create(team=team, user=user, role=Role.OWNER)
    return team


def add(actor: User, team: Team, *, email: str, role: str) -> Added:
    """Add a person. Raises PermissionDenied, NotAdded.

    Someone without an account gets one only from an administrator of the
    instance, and a link to come in by.
    """
    given = _granted(actor, team, role)
    with transaction.atomic():
        user = User.objects.filter(email__iexact=email, is_active=True).first()
        is_new = user is None
        if user is None:
            if not actor.is_superuser or User.objects.filter(email__iexact=email):
                raise NotAdded("No active account has this address.")
            user = User.objects.create_user(email)
        row, made = Membership.objects.get_or_create(
            team=team, user=user, defaults={"role": given}
        )
        if not made:
            raise NotAdded(f"{user.display_name} is {row.role} here already.")
        return Added(user, accounts.new_link(user) if is_new else "")


def change(actor: User, team: Team, pk: int, role: Role | None) -> None:
    """Give a member another role. Raises PermissionDenied, Http404."""
    with transaction.atomic():
        row = _changeable(actor, team, pk)
        row.role = _granted(actor, team, role or "")
        row.save(update_fields=["role"])
        _keep_an_owner(team)


def remove(actor: User, team: Team, pk: int) -> None:
    """Take a member out; what he made stays the team's."""
    with transaction.atomic():
        row = Membership.objects.filter(team=team, pk=pk, user=actor).first()
        if row is None or team.personal_for_id == actor.pk:
            row = _changeable(actor, team, pk)
        row.delete()
        _keep_an_owner(team)


def _granted(actor: User, team: Team, role: str) -> Role:
    if role not in grantable(role_in(actor, team.pk)):
        raise PermissionDenied("Your role in this team does not let you give that.")
    return Role(role)


def _changeable(actor: User, team: Team, pk: int) -> Membership:
    row = Membership.objects.select_related("team").filter(team=team, pk=pk).first()
    if row is None:
        raise Http404
    if not may_change(role_in(actor, team.pk), row):
        raise PermissionDenied("Your role in this team does not let you do this.")
    return row


def _keep_an_owner(team: Team) -> None:
    """Refuse what would leave a shared team to nobody."""
    if not team.memberships.filter(role__in=KEEPERS).exists():
        raise PermissionDenied("A team needs an administrator or an owner.")
