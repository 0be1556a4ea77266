"""What is out of step: machines without a row, rows without a machine."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.models import User

from . import connecting, gateway, reaper
from .errors import NotFound, SandboxError
from .gateway import Machine
from .models import ALIVE, Orphan, Sandbox, State
from .views import user_of

PATIENCE_S = 2.5
MAX_ROWS = 200


@dataclass(frozen=True)
class Stray:
    """A machine that no row holds. Ours is ended by the reaper, another's never."""

    machine: Machine
    backend: str
    title: str
    is_ours: bool
    seen_at: datetime | None


def strays() -> tuple[list[Stray], list[str]]:
    """All of them, and the titles of backends that did not answer in time."""
    backends = gateway.backends()
    listed: dict[str, list[Machine]] = {}

    def ask(name: str) -> None:
        try:
            listed[name] = gateway.machines(name, {})
        except SandboxError:
            return

    gateway.at_once(ask, list(backends), patience_s=PATIENCE_S)
    known = set(
        Sandbox.objects.filter(state__in=ALIVE).values_list("sandbox_id", flat=True)
    )
    seen = {(one.backend, one.sandbox_id): one.seen_at for one in Orphan.objects.all()}
    found = []
    for name, machines in listed.items():
        free = [one for one in machines if one.sandbox_id not in known]
        ours = {one.sandbox_id for one in reaper.orphans(free)}
        found += [
            Stray(
                machine=one,
                backend=name,
                title=backends[name].title,
                is_ours=one.sandbox_id in ours,
                seen_at=seen.get((name, one.sandbox_id)),
            )
            for one in free
            # A young one of ours still waits for its row.
            if one.sandbox_id in ours or not reaper.is_ours(one)
        ]
    silent = [one.title for name, one in backends.items() if name not in listed]
    return found[:MAX_ROWS], silent


def _administrator(request: HttpRequest) -> User:
    user = user_of(request)
    if not user.is_superuser:
        raise Http404
    return user


@login_required
@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """For the administrators of the house; nothing here for all others."""
    _administrator(request)
    found, silent = strays()
    late = timezone.now() - reaper.ALARM
    waiting = Q(state=State.KILLING, state_at__lt=late) | Q(missed_at__isnull=False)
    rows = Sandbox.objects.filter(waiting, state__in=ALIVE)
    context = {
        "strays": found,
        "silent": silent,
        "rows": rows.select_related("team", "owner")[:MAX_ROWS],
    }
    return page(request, "sandboxes/orphans.html", "found", context)


@login_required
@require_POST
def change(request: HttpRequest) -> HttpResponse:
    """End one of ours, or take any into a team of one's own."""
    user = _administrator(request)
    wanted = request.POST.get("sandbox_id", "")
    if request.POST.get("action") == "adopt":
        team = access.team_for(user, request.POST.get("team"), create=True)
        row = connecting.connect(user, team, wanted)
        return redirect("sandboxes:detail", row.code)
    backend = request.POST.get("backend", "")
    machine = gateway.info(Sandbox(backend=backend), sandbox_id=wanted)
    if not reaper.orphans([machine]):
        raise NotFound("It is not ours to end, or a sandbox has it by now.")
    gateway.kill(Sandbox(backend=backend, sandbox_id=wanted))
    messages.success(request, f"{wanted} is ended.")
    return redirect("sandboxes:orphans")
