"""Pages of people and teams."""

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kode_web.shortcuts import page

from . import access, accounts, members
from .forms import NewMember, NewTeam, Profile
from .models import Role, Team, User

# Days -> how it is said.
KEPT = {
    "": "kept for ever",
    "365": "kept for a year",
    "90": "kept for 90 days",
    "30": "kept for 30 days",
    "7": "kept for 7 days",
}


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)


@never_cache
@require_http_methods(["GET", "POST"])
def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    """Sign in by a one-time link.

    Opening it changes nothing, so that a mail scanner cannot use it up; the page
    sends its form by itself where scripts run.
    """
    if request.method == "POST" and (answer := accounts.use_link(request, token)):
        return answer
    is_good = request.method == "GET" and accounts.is_good(token)
    status = 200 if is_good else 410
    context = {"is_good": is_good}
    return page(request, "account/link.html", context=context, status=status)


@login_required
@require_http_methods(["GET", "POST"])
def me(request: HttpRequest) -> HttpResponse:
    """The person's name, and the doors to password and second factor."""
    user = _user(request)
    form = Profile(request.POST or None, instance=user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Saved.")
        return redirect("me")
    return page(request, "account/me.html", context={"form": form})


@login_required
@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The person's teams, and a form for another one."""
    user = _user(request)
    form = NewTeam(request.POST or None)
    if request.method == "POST" and form.is_valid():
        team = members.create(user, form.cleaned_data["name"])
        return redirect("teams:detail", team.slug)
    rows = user.memberships.select_related("team").order_by("team__name")
    return page(request, "teams/list.html", context={"form": form, "rows": rows})


@login_required
@require_GET
def detail(request: HttpRequest, slug: str) -> HttpResponse:
    """A team's members and what their roles allow."""
    team = access.team_for(_user(request), slug)
    return _members(request, team, NewMember())


def _members(
    request: HttpRequest, team: Team, form: NewMember, *, link: str = ""
) -> HttpResponse:
    """The members' page; `link` is shown this once and stored nowhere."""
    role = access.role_in(_user(request), team.pk)
    rows = team.memberships.select_related("user", "team").order_by("user__email")
    can_add = role in members.KEEPERS
    context = {
        "team": team,
        "form": form,
        "rows": [(row, members.may_change(role, row)) for row in rows],
        "roles": members.grantable(role),
        "can_add": can_add,
        "kept": KEPT.items(),
        "link": link,
    }
    return page(request, "teams/detail.html", context=context)


@login_required
@require_POST
def add(request: HttpRequest, slug: str) -> HttpResponse:
    """Add a person who has an account; an administrator makes one for the others."""
    team = access.team_for(_user(request), slug)
    form = NewMember(request.POST)
    if not form.is_valid():
        return _members(request, team, form)
    try:
        added = members.add(_user(request), team, **form.cleaned_data)
    except members.NotAdded as error:
        form.add_error("email", str(error))
        return _members(request, team, form)
    if added.link:
        return _members(request, team, NewMember(), link=added.link)
    messages.success(request, f"{added.user.display_name} is in {team.name} now.")
    return redirect("teams:detail", slug)


@login_required
@require_POST
def keep(request: HttpRequest, slug: str) -> HttpResponse:
    """How long the records of ended sandboxes stay."""
    user = _user(request)
    team = access.team_for(user, slug)
    if access.role_in(user, team.pk) not in members.KEEPERS:
        raise PermissionDenied("Owners and admins of the team decide this.")
    wanted = request.POST.get("days", "")
    if wanted not in KEPT:
        raise Http404
    Team.objects.filter(pk=team.pk).update(keep_days=int(wanted) if wanted else None)
    messages.success(request, f"Ended sandboxes of {team.name}: {KEPT[wanted]}.")
    return redirect("teams:detail", slug)


@login_required
@require_POST
def change(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Give a member another role, or remove him."""
    team = access.team_for(_user(request), slug)
    role = request.POST.get("role", "")
    if role:
        members.change(_user(request), team, pk, Role(role) if role in Role else None)
    else:
        members.remove(_user(request), team, pk)
    return redirect("teams:detail", slug)
