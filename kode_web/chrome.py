"""What the frame around every page shows: counts, recent things, usage."""

from functools import cached_property
from typing import Any

from django.conf import settings
from django.db.models import Count, Q
from django.http import HttpRequest

from agents import model
from agents.models import Agent
from kode_web.teams import access
from kode_web.teams.accounts import is_open
from kode_web.teams.models import Team, User
from sandboxes.models import ALIVE, HOLDING, Sandbox, State

THEMES = frozenset({"light", "dark"})
RECENT = 5


class Rail:
    """The left rail of one person; each part is read when it is drawn."""

    def __init__(self, user: User) -> None:
        self.user = user

    @cached_property
    def team(self) -> Team:
        """Of the teams he makes things in, the one whose quota is used most."""
        teams = access.teams_to_create_in(self.user)
        holding = Count("sandboxes", filter=Q(sandboxes__state__in=HOLDING))
        busiest = teams.annotate(holding=holding).order_by("-holding", "pk").first()
        return busiest or access.own_team(self.user)

    @cached_property
    def running(self) -> int:
        """Sandboxes that run and that the person sees."""
        return access.visible(self.user, Sandbox).filter(state=State.RUNNING).count()

    @cached_property
    def holding(self) -> int:
        """Sandboxes that use that team's quota."""
        return Sandbox.objects.filter(team=self.team).holding().count()

    @property
    def limit(self) -> int:
        """How many a team may have running."""
        return settings.MAX_RUNNING_SANDBOXES

    @property
    def percent(self) -> int:
        """How much of the limit is used."""
        return min(100, round(100 * self.holding / max(1, self.limit)))

    @property
    def level(self) -> str:
        """How tight it is, for the meter's colour."""
        if self.percent >= 100:
            return "full"
        return "high" if self.percent >= 80 else ""

    @cached_property
    def waiting(self) -> int:
        """Agents that wait for a person's decision."""
        paused = access.visible(self.user, Agent).filter(ended_at=None, held_at=None)
        return paused.filter(state=Agent.State.PAUSED).count()

    @cached_property
    def recent(self) -> list[Sandbox | Agent]:
        """The sandboxes and agents used last, live ones only."""
        sandboxes = access.visible(self.user, Sandbox).filter(state__in=ALIVE)
        agents = access.visible(self.user, Agent).filter(ended_at=None)
        last = "-used_at"
        rows: list[Sandbox | Agent] = [
            *sandboxes.order_by(last)[:RECENT],
            *agents.order_by(last)[:RECENT],
        ]
        return sorted(rows, key=lambda row: row.used_at, reverse=True)[:RECENT]


def chrome(request: HttpRequest) -> dict[str, Any]:
    """The context of base.html; the theme is there for strangers too."""
    theme = request.COOKIES.get("theme", "")
    context: dict[str, Any] = {
        "theme": theme if theme in THEMES else "",
        "can_sign_up": is_open,
    }
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return context
    return {**context, "rail": Rail(user), "model_badge": model.choose().badge}
