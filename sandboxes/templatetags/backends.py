"""A team's own accounts on the team's page."""

from typing import Any

from django import template

from kode_web.teams.models import Team, User
from sandboxes import backend_rows

register = template.Library()


@register.simple_tag
def own_backends(user: User, team: Team) -> dict[str, Any] | None:
    """What the section shows; None for those who do not keep the team's keys."""
    if not backend_rows.may_set_key(user, team):
        return None
    return backend_rows.section(team)
