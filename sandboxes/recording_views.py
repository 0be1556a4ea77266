"""Recordings of a sandbox's terminals: the list, the player, the file."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May

from . import actions, recordings
from .errors import NotReady
from .models import Recording, Sandbox
from .views import frame, user_of


def _get(sandbox: Sandbox, recording: str) -> Recording:
    rows = Recording.objects.select_related("terminal", "started_by")
    return get_object_or_404(rows, terminal__sandbox=sandbox, code=recording)


@login_required
@require_GET
def index(request: HttpRequest, code: str) -> HttpResponse:
    """All recordings of a sandbox, also of one that has ended."""
    sandbox = access.get(request.user, Sandbox, code)
    found = recordings.of_sandbox(sandbox)
    context = frame(request, sandbox, "recordings") | {"recordings": found}
    return page(request, "sandboxes/recordings.html", "rows", context)


@login_required
@require_GET
def play(request: HttpRequest, code: str, recording: str) -> HttpResponse:
    """The player."""
    sandbox = access.get(request.user, Sandbox, code)
    row = _get(sandbox, recording)
    context = frame(request, sandbox, "recordings") | {"recording": row}
    return page(request, "sandboxes/recording.html", context=context)


@login_required
@require_GET
def cast(request: HttpRequest, code: str, recording: str) -> StreamingHttpResponse:
    """The recording as an asciicast file."""
    sandbox = access.get(request.user, Sandbox, code)
    row = _get(sandbox, recording)
    name = f"{row.terminal.name} {row.started_at:%Y-%m-%d %H.%M}.cast"
    response = StreamingHttpResponse(
        recordings.lines(row), content_type="application/x-asciicast"
    )
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["Cache-Control"] = "private, no-store"
    return response


@login_required
@require_POST
def delete(request: HttpRequest, code: str, recording: str) -> HttpResponse:
    """Delete a recording that has ended."""
    sandbox = access.get(request.user, Sandbox, code, May.MANAGE)
    row = _get(sandbox, recording)
    if row.ended_at is None:
        raise NotReady("This recording still runs. End it in its terminal first.")
    actions.record(
        sandbox, "recording.deleted", actor=user_of(request), name=row.terminal.name
    )
    row.delete()
    return redirect("sandboxes:recordings", code)
