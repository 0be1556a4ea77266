"""Pages that join the apps: home, and what sandboxes can be made from."""

import logging
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agents import actions as agent_actions
from agents import model
from agents.models import Agent
from kode_web.find import find
from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.models import User, new_code
from sandboxes import actions, gateway, shells
from sandboxes.actions import CreateRequest
from sandboxes.errors import SandboxError
from sandboxes.gateway import Backend
from sandboxes.models import ALIVE, Sandbox

logger = logging.getLogger(__name__)
LISTED = 5
EXAMPLES = (
    "Clone a repository and run its tests",
    "Serve a small page on port 8000",
    "$ python3 -V",
)
OFFLINE_EXAMPLES = ("run uname -a", "write notes.txt hello", "$ python3 -V")


@login_required
@require_http_methods(["GET", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """One composer, and what the person worked on last."""
    user = cast(User, request.user)
    if request.method == "POST":
        return _start(request, user)
    badge = model.choose().badge
    agents = access.visible(user, Agent).filter(ended_at=None).order_by("-used_at")
    sandboxes = access.visible(user, Sandbox).filter(state__in=ALIVE)
    waiting = agents.filter(state=Agent.State.PAUSED, held_at=None)
    context = {
        "key": new_code(),
        "teams": access.teams_to_create_in(user),
        "examples": OFFLINE_EXAMPLES if badge else EXAMPLES,
        "sandboxes": sandboxes.order_by("-used_at")[:LISTED],
        "agents": agents.exclude(pk__in=waiting.values("pk"))[:LISTED],
        "waiting": waiting[:LISTED],
    }
    response = page(request, "home.html", context=context)
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_GET
def find_or_run(request: HttpRequest) -> HttpResponse:
    """What fits a few words: things to do, sandboxes, agents, pages."""
    text = request.GET.get("q", "").strip()[:100]
    part = "found" if request.headers.get("HX-Target") == "found" else "palette"
    context = {"q": text, "groups": find(cast(User, request.user), text)}
    return page(request, "find.html", part, context)


def _start(request: HttpRequest, user: User) -> HttpResponse:
    """An agent for words; a terminal for `$ command` and for nothing."""
    text = request.POST.get("prompt", "").replace("\r\n", "\n").strip()
    team = access.team_for(user, request.POST.get("team") or None, create=True)
    if text and not text.startswith("$") and "terminal" not in request.POST:
        agent = agent_actions.start(user, team, text)
        return redirect("agents:detail", agent.code)
    command = text.removeprefix("$").strip() if text.startswith("$") else ""
    key = (request.POST.get("key") or new_code())[:64]
    sandbox = actions.create(user, team, CreateRequest(), key=key)
    if not sandbox.terminals.exists():
        shells.create_row(sandbox, user, command)
    return redirect("sandboxes:detail", sandbox.code)


@dataclass(frozen=True)
class Offer:
    """A template of a backend, as its page shows it."""

    name: str
    is_ready: bool
    detail: str


@dataclass(frozen=True)
class Shelf:
    """A backend, its templates, and what is known of its local trees."""

    name: str
    title: str
    offers: list[Offer]
    trees: list[dict[str, Any]]
    problem: str = ""


@login_required
@require_GET
def templates(request: HttpRequest) -> HttpResponse:
    """What a sandbox can be made from, at each backend."""
    shelves = _shelves(_backends_for(cast(User, request.user)))
    trees = [tree for shelf in shelves for tree in shelf.trees]
    context = {
        "shelves": shelves,
        "is_building": any(tree["state"] == "building" for tree in trees),
        "can_build": cast(User, request.user).is_staff,
        "default_backend": settings.DEFAULT_BACKEND,
    }
    return page(request, "templates.html", "shelves", context)


@login_required
@require_POST
def build_base(request: HttpRequest) -> HttpResponse:
    """Let the local runtime begin to build its `base` tree."""
    if not cast(User, request.user).is_staff:
        raise PermissionDenied("Only an administrator of this instance builds.")
    name = request.POST.get("backend", "local")
    known = gateway.backends().get(name)
    if known is None or not known.is_local:
        raise Http404
    gateway.build_base(name)
    messages.info(request, "Building base. It takes a few minutes.")
    return redirect("templates")


def _backends_for(user: User) -> list[Backend]:
    """Those that any team of the person may use, each once."""
    found: dict[str, Backend] = {}
    for team in access.teams_to_create_in(user):
        found |= gateway.backends_of(team)
    return list(found.values())


def _shelves(backends: list[Backend]) -> list[Shelf]:
    """Those of all, asked at once; a slow one is an empty shelf for now."""
    found: dict[str, Shelf] = {}

    def ask(one: Backend) -> None:
        found[one.name] = _shelf(one)

    gateway.at_once(ask, backends)
    slow = "It has not answered yet."
    return [
        found.get(one.name) or Shelf(one.name, one.title, [], [], slow)
        for one in backends
    ]


def _shelf(backend: Backend) -> Shelf:
    """What a backend offers now; a silent one is an empty shelf that says so."""
    name, title = backend.name, backend.title
    try:
        rows = gateway.templates(name)
        trees = gateway.report(name)["trees"] if backend.is_local else []
    except SandboxError as error:
        logger.info("templates of %s: %s", name, error)
        return Shelf(name, title, [], [], str(error))
    return Shelf(name, title, [_offer(row) for row in rows], trees)


def _offer(row: dict[str, Any]) -> Offer:
    names = row.get("names") or row.get("aliases") or [row.get("templateID")]
    is_ready = row.get("buildStatus", "ready") == "ready"
    return Offer(str(names[0])[:120], is_ready, str(row.get("buildDescription") or ""))
