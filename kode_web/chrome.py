"""What the frame around every page shows: counts, recent things, usage."""

from functools import cached_property
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
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
    def teams(self) -> list[int]:
        """The teams whose things he sees."""
        return access.team_ids(self.user)

    def _seen[M: models.Model](self, model: type[M]) -> models.QuerySet[M]:
        return access.visible(self.user, model, teams=self.teams)

    @cached_property
    def team(self) -> Team:
        """Of the teams he makes things in, the one whose quota is used most."""
        teams = access.teams_to_create_in(self.user)
        holding = Sandbox.objects.filter(team=OuterRef("pk"), state__in=HOLDING)
        count = holding.order_by().values("team").annotate(n=Count("pk")).values("n")
        teams = teams.annotate(holding=Coalesce(Subquery(count), 0))
        return teams.order_by("-holding", "pk").first() or access.own_team(self.user)

    @cached_property
    def running(self) -> int:
        """Sandboxes that run and that the person sees."""
        return self._seen(Sandbox).filter(state=State.RUNNING).count()

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
        paused = self._seen(Agent).filter(ended_at=None, held_at=None)
        return paused.filter(state=Agent.State.PAUSED).count()

    @cached_property
    def recent(self) -> list[Sandbox | Agent]:
        """The sandboxes and agents used last, live ones only."""
        sandboxes = self._seen(Sandbox).filter(state__in=ALIVE)
        agents = self._seen(Agent).filter(ended_at=None)
        rows: list[Sandbox | Agent] = [*_last_used(sandboxes), *_last_used(agents)]
        return sorted(rows, key=lambda row: row.used_at, reverse=True)[:RECENT]


def _last_used[M: models.Model](rows: models.QuerySet[M]) -> list[M]:
    """The newest few; their ids are sorted alone, not whole rows."""
    newest = rows.order_by("-used_at", "-pk").values_list("pk", flat=True)
    return list(rows.model._default_manager.in_bulk(list(newest[:RECENT])).values())


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
