"""Pages of backends: their state, what works there, and the keys of teams."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.models import Team

from . import backend_rows, gateway, probes
from .errors import SandboxError, Unreachable
from .gateway import Backend, Status
from .models import BackendRow, Probe, Sandbox
from .probe_steps import STEPS
from .views import user_of


@dataclass(frozen=True)
class Place:
    """A backend as its pages show it."""

    backend: Backend
    status: Status | None
    is_open: bool
    alive: int
    team: Team | None
    probe: Probe | None

    @property
    def address(self) -> str:
        """Where it is."""
        options = self.backend.options
        return options.get("api_url") or options.get("domain", "")

    @property
    def state(self) -> str:
        """The sign of it."""
        if self.status is None:
            return "working"
        return "running" if self.status.is_ok and not self.is_open else "error"

    @property
    def words(self) -> str:
        """The same in words."""
        if self.status is None:
            return "asking"
        return "serves" if self.state == "running" else "does not serve"


def places(backends: list[Backend]) -> list[Place]:
    """What is known of each now; all are asked at once, and nobody waits long."""
    known = gateway.statuses([one.name for one in backends])
    teams = Team.objects.in_bulk([one.team_id for one in backends if one.team_id])
    return [
        Place(
            backend=one,
            status=known.get(one.name),
            is_open=gateway.breaker(one.name).is_open,
            alive=Sandbox.objects.alive().filter(backend=one.name).count(),
            team=teams.get(one.team_id or 0),
            probe=probes.last(one.name),
        )
        for one in backends
    ]


@login_required
@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The backends that the person keeps. Nothing here for those who keep none."""
    user = user_of(request)
    kept = backend_rows.kept_by(user)
    if not kept and not user.is_superuser:
        raise Http404
    context = {"places": places(kept), "can_add": user.is_superuser}
    return page(request, "sandboxes/backends.html", "rows", context)


@login_required
@require_GET
def detail(request: HttpRequest, name: str) -> HttpResponse:
    """One backend: whether it serves, and what the last probe found."""
    backend = backend_rows.get(user_of(request), name)
    place = places([backend])[0]
    context = {
        "place": place,
        "probe": place.probe,
        "steps": _steps(place.probe),
        "edit": _edit_page(request, name),
    }
    return page(request, "sandboxes/backend.html", "found", context)


@login_required
@require_POST
def probe(request: HttpRequest, name: str) -> HttpResponse:
    """Begin to try every call; the page follows."""
    user = user_of(request)
    probes.start(user, backend_rows.get(user, name).name)
    return redirect("sandboxes:backend", name)


def _edit_page(request: HttpRequest, name: str) -> str:
    """Where an administrator changes it; empty for what the settings set up."""
    row = BackendRow.objects.filter(name=name).only("pk").first()
    if row is None or not user_of(request).is_superuser:
        return ""
    return reverse("admin:sandboxes_backendrow_change", args=[row.pk])


def _steps(row: Probe | None) -> list[dict[str, Any]]:
    """The steps that ended, and while it runs those that are to come."""
    if row is None:
        return []
    done: list[dict[str, Any]] = list(row.steps)
    if row.ended_at is None:
        rest = STEPS[len(done) :]
        done += [
            {"words": step.words, "state": "waiting" if at else "running"}
            for at, step in enumerate(rest)
        ]
    return done


@login_required
@never_cache
@sensitive_post_parameters("key")
@require_POST
def own(request: HttpRequest, slug: str) -> HttpResponse:
    """Set or remove a key of a team's own account."""
    user = user_of(request)
    team = access.team_for(user, slug)
    name = request.POST.get("name", "")
    if request.POST.get("action") == "remove":
        backend_rows.remove_key(user, team, name)
        messages.success(request, "The key is removed.")
        return redirect("teams:detail", slug)
    is_sure = bool(request.POST.get("is_sure"))
    try:
        row = backend_rows.set_key(
            user, team, request.POST.get("key", ""), name=name, is_sure=is_sure
        )
    except SandboxError as error:
        wrong = {
            "wrong": str(error),
            "wrong_name": name,
            "asks": isinstance(error, Unreachable),
        }
        context = {"team": team, "own": backend_rows.section(team) | wrong}
        # The key is asked for again: it goes back into no page.
        return page(request, "teams/own.html", context=context, status=error.status)
    messages.success(request, f"{row} takes the key. New sandboxes can go there.")
    return redirect("teams:detail", slug)
