"""Pages of agents. Every form works by plain POST; htmx gets 204 and the socket
brings what changed."""

from typing import cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import User
from sandboxes.models import Sandbox

from . import actions, model
from .forms import NewAgent
from .models import Agent
from .transcript import Scribe

LISTED = 200


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)


def _changed(request: HttpRequest, agent: Agent) -> HttpResponse:
    """The answer to a form of the agent's page."""
    if request.headers.get("HX-Request"):
        return HttpResponse(status=204)
    return redirect("agents:detail", agent.code)


@login_required
@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """The agents that the person sees, newest use first."""
    seen = access.visible(request.user, Agent).filter(ended_at=None)
    agents = seen.order_by("-used_at").select_related("owner", "sandbox", "team")[
        :LISTED
    ]
    return page(request, "agents/list.html", "rows", {"agents": agents})


@login_required
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Start an agent; the form's fields may come from a link or the home page."""
    user = _user(request)
    posted = request.POST if request.method == "POST" else None
    slug = request.POST.get("team") or request.GET.get("team")
    team = access.team_for(user, slug, create=True)
    form = NewAgent(user, team, posted, initial=request.GET.dict())
    if posted is None or not form.is_valid():
        teams = access.teams_to_create_in(user)
        context = {"form": form, "choice": model.choose(), "team": team, "teams": teams}
        return page(request, "agents/new.html", context=context)
    data = form.cleaned_data
    if data["sandbox"] is not None:
        access.get(user, Sandbox, data["sandbox"].code, May.DRIVE)
    agent = actions.start(
        user,
        team,
        data["prompt"],
        sandbox=data["sandbox"],
        template=data["template"],
        mode=data["mode"],
    )
    return redirect("agents:detail", agent.code)


@login_required
@require_GET
def detail(request: HttpRequest, code: str) -> HttpResponse:
    """The chat beside the sandbox."""
    agent = access.get(request.user, Agent, code)
    context = Scribe(agent, request.user).page()
    return page(request, "agents/detail.html", context=context)


@login_required
@require_POST
def send(request: HttpRequest, code: str) -> HttpResponse:
    """Say something to the agent."""
    agent = access.get(request.user, Agent, code, May.DRIVE)
    actions.send(_user(request), agent, request.POST.get("text", ""))
    return _changed(request, agent)


@login_required
@require_POST
def unqueue(request: HttpRequest, code: str, message: str) -> HttpResponse:
    """Take back a message that waits."""
    agent = access.get(request.user, Agent, code, May.DRIVE)
    actions.unqueue(agent, message)
    return _changed(request, agent)


@login_required
@require_POST
def stop(request: HttpRequest, code: str) -> HttpResponse:
    """End the turn."""
    agent = access.get(request.user, Agent, code, May.DRIVE)
    actions.stop(_user(request), agent)
    return _changed(request, agent)


@login_required
@require_POST
def decide(request: HttpRequest, code: str, call: str) -> HttpResponse:
    """Allow or deny a tool call; anything but `allow` denies."""
    agent = access.get(request.user, Agent, code, May.DRIVE)
    actions.decide(
        _user(request),
        agent,
        call,
        allow=request.POST.get("decision") == "allow",
        note=request.POST.get("note", "").strip(),
    )
    return _changed(request, agent)


@login_required
@require_POST
def pause(request: HttpRequest, code: str) -> HttpResponse:
    """Keep the agent from working."""
    agent = access.get(request.user, Agent, code, May.MANAGE)
    actions.pause(_user(request), agent)
    return _changed(request, agent)


@login_required
@require_POST
def resume(request: HttpRequest, code: str) -> HttpResponse:
    """Let a paused agent work again."""
    agent = access.get(request.user, Agent, code, May.MANAGE)
    actions.resume(_user(request), agent)
    return _changed(request, agent)


@login_required
@require_POST
def fork(request: HttpRequest, code: str) -> HttpResponse:
    """Copy the chat to a new agent and go there."""
    agent = access.get(request.user, Agent, code, May.DRIVE)
    copy = actions.fork(_user(request), agent)
    return redirect("agents:detail", copy.code)


@login_required
@require_http_methods(["GET", "POST"])
def dispose(request: HttpRequest, code: str) -> HttpResponse:
    """Ask, then end the agent for good, and its sandbox if the person wants."""
    user = _user(request)
    agent = access.get(user, Agent, code, May.MANAGE)
    sandbox = agent.sandbox
    owns = sandbox is not None and May.MANAGE in access.rights(user, sandbox)
    with_sandbox = owns and request.POST.get("with_sandbox") == "1"
    if request.method == "GET":
        has_live = sandbox is not None and sandbox.is_alive
        context = {"agent": agent, "can_dispose_sandbox": owns and has_live}
        return page(request, "agents/dispose.html", "ask", context)
    actions.dispose(user, agent, with_sandbox=with_sandbox)
    return redirect("agents:list")
