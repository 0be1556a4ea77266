"""Pages of sandboxes. Every form works by plain POST; what changes draws itself."""

from typing import Any, cast

from django.conf import settings as conf
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import User, new_code

from . import actions, connecting, files, gateway, offers, probes, recordings, shells
from .forms import NewSandbox, Settings
from .models import Sandbox, State

EXTEND_S = 1800
# Fields of the settings that are times.
TIMES = ("timeout_s", "command_timeout_s")
PAUSE_HINT = (
    "On a local backend a paused one waits in memory: after a reboot of that machine "
    "its files are there, its processes are not."
)
MOVING = (State.CREATING, State.PAUSING, State.RESUMING, State.KILLING)


def user_of(request: HttpRequest) -> User:
    """The signed-in person."""
    return cast(User, request.user)


def frame(request: HttpRequest, sandbox: Sandbox, tab: str) -> dict[str, Any]:
    """What the head and the tabs around a sandbox's page show."""
    rights = access.rights(request.user, sandbox)
    return {
        "sandbox": sandbox,
        "tab": tab,
        # These say what to do with one that does not run, and offer it.
        "has_pane": tab in ("terminal", "files", "ports"),
        "can_drive": May.DRIVE in rights,
        "can_manage": May.MANAGE in rights,
        "is_moving": sandbox.state in MOVING,
        "stage": actions.stage(sandbox),
        "seconds_left": sandbox.seconds_left,
        "total_s": _total_s(sandbox),
        "percent_left": percent_left(sandbox),
        "backend": (backend := gateway.backends().get(sandbox.backend)),
        "is_local": backend.is_local if backend else sandbox.backend == "local",
        "workdir": files.clean(sandbox, ""),
        "has_recordings": recordings.exist(sandbox),
    }


def _total_s(sandbox: Sandbox) -> int:
    """Seconds from its start to its end, as far as they are known."""
    if sandbox.ends_at is None or sandbox.started_at is None:
        return max(1, sandbox.timeout_s)
    return max(1, int((sandbox.ends_at - sandbox.started_at).total_seconds()))


def percent_left(sandbox: Sandbox) -> int:
    """How much of its time is left."""
    left = sandbox.seconds_left or 0
    return min(100, 100 * left // _total_s(sandbox))


def go_back(request: HttpRequest, sandbox: Sandbox) -> HttpResponse:
    """To the page the form named, if it is ours, else to the sandbox."""
    wanted = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(wanted, None):
        return redirect(wanted)
    return redirect("sandboxes:detail", sandbox.code)


@login_required
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Make a sandbox with settings of its own, and open a terminal in it."""
    user = user_of(request)
    posted = request.POST if request.method == "POST" else None
    wanted = request.POST.get("team") or request.GET.get("team")
    team = access.team_for(user, wanted, create=True)
    form = NewSandbox(
        posted,
        offers=offers.of_team(team),
        # A link may fill the form in; only a person sends it.
        initial={"template": "base"} | request.GET.dict(),
    )
    if posted is None or not form.is_valid():
        context = {
            "form": form,
            "team": team,
            "pause_hint": PAUSE_HINT if form.offers.has_local else "",
            "teams": access.teams_to_create_in(user),
            "key": _key(request),
            "running": Sandbox.objects.filter(team=team).holding().count(),
            "limit": conf.MAX_RUNNING_SANDBOXES,
        }
        return page(request, "sandboxes/new.html", context=context)
    sandbox = actions.create(user, team, form.request(), key=_key(request))
    return with_terminal(user, sandbox)


@login_required
@require_POST
def connect(request: HttpRequest) -> HttpResponse:
    """Open a sandbox that is there already, by its id."""
    user = user_of(request)
    team = access.team_for(user, request.POST.get("team"), create=True)
    sandbox = connecting.connect(user, team, request.POST.get("sandbox_id", ""))
    return redirect("sandboxes:detail", sandbox.code)


def _key(request: HttpRequest) -> str:
    """Of the form that was sent, so that sending it twice makes one sandbox."""
    return (request.POST.get("key") or new_code())[:64]


def with_terminal(user: User, sandbox: Sandbox) -> HttpResponse:
    """Give a new sandbox its first shell and go there."""
    if not sandbox.terminals.exists():
        shells.create_row(sandbox, user)
    return redirect("sandboxes:detail", sandbox.code)


@login_required
@require_GET
def detail(request: HttpRequest, code: str) -> HttpResponse:
    """The terminal, or what there is instead of one."""
    sandbox = access.get(request.user, Sandbox, code)
    rows = list(sandbox.terminals.filter(closed_at=None).order_by("pk"))
    wanted = request.GET.get("terminal")
    chosen = next((row for row in rows if row.code == wanted), None)
    if wanted and chosen is None and not request.headers.get("HX-Request"):
        return redirect("sandboxes:detail", code)
    context = frame(request, sandbox, "terminal") | {
        "terminals": rows,
        "terminal": chosen or (rows[0] if rows else None),
    }
    return page(request, "sandboxes/detail.html", "whole", context)


@login_required
@require_http_methods(["GET", "POST"])
def settings(request: HttpRequest, code: str) -> HttpResponse:
    """Its name, and the facts it was made with."""
    posted = request.POST if request.method == "POST" else None
    may = May.VIEW if posted is None else May.MANAGE
    sandbox = access.get(request.user, Sandbox, code, may)
    old = sandbox.name
    form = Settings(posted, instance=sandbox)
    if posted is not None and form.is_valid():
        form.save()
        user = user_of(request)
        if "name" in form.changed_data:
            to = sandbox.name
            actions.record(sandbox, "sandbox.renamed", actor=user, old=old, to=to)
        if "labels" in form.changed_data:
            actions.record(sandbox, "sandbox.labelled", actor=user)
        times = [name for name in TIMES if name in form.changed_data]
        if times:
            told = {name: form.cleaned_data[name] for name in times}
            actions.record(sandbox, "sandbox.timed", actor=user, **told)
        if names := sorted(form.cleaned_data["variables"]):
            words = " ".join(names)[:500]
            actions.record(sandbox, "sandbox.variables", actor=user, names=words)
        return redirect("sandboxes:settings", code)
    context = frame(request, sandbox, "settings") | {
        "form": form,
        "lacks": probes.lacks(sandbox.backend),
        "env_names": sorted(sandbox.envs),
        "metadata": sorted(sandbox.metadata.items()),
    }
    return page(request, "sandboxes/settings.html", context=context)


@login_required
@require_POST
def pause(request: HttpRequest, code: str) -> HttpResponse:
    """Stop the clock and keep everything."""
    sandbox = access.get(request.user, Sandbox, code, May.MANAGE)
    actions.pause(user_of(request), sandbox)
    return go_back(request, sandbox)


@login_required
@require_POST
def resume(request: HttpRequest, code: str) -> HttpResponse:
    """Go on where it was paused."""
    sandbox = access.get(request.user, Sandbox, code, May.MANAGE)
    actions.resume(user_of(request), sandbox)
    return go_back(request, sandbox)


@login_required
@require_POST
def extend(request: HttpRequest, code: str) -> HttpResponse:
    """Half an hour more."""
    sandbox = access.get(request.user, Sandbox, code, May.MANAGE)
    actions.extend(user_of(request), sandbox, EXTEND_S)
    return go_back(request, sandbox)


@login_required
@require_http_methods(["GET", "POST"])
def dispose(request: HttpRequest, code: str) -> HttpResponse:
    """Ask, then end it for good."""
    sandbox = access.get(request.user, Sandbox, code, May.MANAGE)
    if request.method == "GET":
        return page(
            request, "sandboxes/dispose.html", "ask", frame(request, sandbox, "")
        )
    actions.dispose(user_of(request), sandbox)
    messages.success(request, f"{sandbox.name} is disposed.")
    if request.POST.get("next"):
        return go_back(request, sandbox)
    return redirect("sandboxes:list")
