"""The dashboard's door to a preview: the click on a port."""

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from kode_web import preview
from kode_web.teams import access
from sandboxes.models import Sandbox


@login_required
@require_POST
def open_port(request: HttpRequest, code: str, port: int) -> HttpResponse:
    """Go to a port's preview with a code that works once."""
    sandbox = access.get(request.user, Sandbox, code)
    if not 1024 <= port <= 65535 or port in preview.HIDDEN_PORTS:
        raise Http404
    return redirect(preview.open_code(request, sandbox, port))
