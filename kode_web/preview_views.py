"""The dashboard's door to a preview: the click on a port."""

from collections.abc import MutableMapping
from typing import Any, cast

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from kode_web import preview
from kode_web.shortcuts import page
from kode_web.teams import access
from sandboxes import port_rights
from sandboxes.models import Sandbox


@login_required
@require_POST
def open_port(request: HttpRequest, code: str, port: int) -> HttpResponse:
    """Go to a port's preview with a code that works once."""
    sandbox = access.get(request.user, Sandbox, code)
    if not port_rights.can_open(port):
        raise Http404
    if not port_rights.may_open(request.user, sandbox, port):
        raise PermissionDenied(f"Port {port} is private. Ask who made the sandbox.")
    session = cast(MutableMapping[str, Any], request.session)
    if request.POST.get("sure"):
        port_rights.make_known(session, sandbox)
    if not port_rights.is_known(session, request.user, sandbox):
        context = {"sandbox": sandbox, "port": port}
        return page(request, "preview_first.html", context=context)
    if request.accepts("text/html"):
        return redirect(preview.open_code(request, sandbox, port))
    # For a pane, that takes the address itself.
    return JsonResponse({"url": preview.open_code(request, sandbox, port, embed=True)})
