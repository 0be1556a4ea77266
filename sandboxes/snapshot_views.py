"""Snapshots and forks by form."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_http_methods, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import new_code

from . import snapshots
from .models import Sandbox, Snapshot
from .views import frame, user_of, with_terminal


@login_required
@require_http_methods(["GET", "POST"])
def index(request: HttpRequest, code: str) -> HttpResponse:
    """The snapshots of a sandbox; a POST takes one."""
    posted = request.method == "POST"
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE if posted else May.VIEW)
    if posted:
        row = snapshots.take(user_of(request), sandbox, request.POST.get("name", ""))
        if row.state == Snapshot.State.FAILED:
            messages.error(request, f"{row.name} could not be made: {row.error}")
        return redirect("sandboxes:snapshots", code)
    rows = sandbox.snapshots.exclude(state=Snapshot.State.DELETED)
    context = frame(request, sandbox, "snapshots") | {
        "snapshots": rows.select_related("owner"),
        "is_making": any(row.state == Snapshot.State.MAKING for row in rows),
        "key": new_code(),
    }
    return page(request, "sandboxes/snapshots.html", "rows", context)


@login_required
@require_POST
def create(request: HttpRequest, code: str, snapshot: str) -> HttpResponse:
    """A new sandbox made from a snapshot, with a terminal."""
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    row = get_object_or_404(sandbox.snapshots, code=snapshot)
    user = user_of(request)
    key = (request.POST.get("key") or new_code())[:64]
    return with_terminal(user, snapshots.create(user, row, key=key))


@login_required
@require_POST
def delete(request: HttpRequest, code: str, snapshot: str) -> HttpResponse:
    """Delete a snapshot for good."""
    sandbox = access.get(request.user, Sandbox, code, May.MANAGE)
    row = get_object_or_404(sandbox.snapshots, code=snapshot)
    snapshots.delete(user_of(request), row)
    return redirect("sandboxes:snapshots", code)


@login_required
@require_POST
def fork(request: HttpRequest, code: str) -> HttpResponse:
    """Another sandbox with the same files, with a terminal."""
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    user = user_of(request)
    key = (request.POST.get("key") or new_code())[:64]
    return with_terminal(user, snapshots.fork(user, sandbox, key=key))
