"""The ports of a sandbox: what listens, who may open it, and a pane that shows it."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May

from . import port_rights, ports
from .errors import SandboxError
from .models import Sandbox
from .ports import Port
from .views import frame, user_of


@dataclass(frozen=True)
class Row:
    """A port as the page shows it."""

    port: Port
    host: str
    visibility: str
    can_open: bool

    @property
    def words(self) -> str:
        """Who may open it."""
        return port_rights.WORDS[self.visibility]


@login_required
@require_GET
def index(request: HttpRequest, code: str) -> HttpResponse:
    """The ports that listen inside, each with a way to open it."""
    sandbox = access.get(request.user, Sandbox, code)
    session = cast(MutableMapping[str, Any], request.session)
    context = frame(request, sandbox, "ports") | {
        "choices": port_rights.WORDS.items(),
        # A frame gets its cookie only where cookies are Secure, and shows no question.
        "embeds": settings.SECURE_COOKIES
        and port_rights.is_known(session, request.user, sandbox),
    }
    if sandbox.is_running:
        try:
            context["ports"] = rows(request, sandbox)
        except SandboxError as error:
            context["error"] = error
    return page(request, "sandboxes/ports.html", "rows", context)


def rows(request: HttpRequest, sandbox: Sandbox) -> list[Row]:
    """What listens now. Raises SandboxError when the sandbox cannot be asked."""
    shares = dict(sandbox.shared_ports.values_list("port", "visibility"))
    may_all = May.MANAGE in access.rights(request.user, sandbox)
    return [
        Row(
            port=one,
            host=sandbox.preview_host(one.number),
            visibility=shares.get(one.number, port_rights.PRIVATE),
            can_open=port_rights.can_open(one.number)
            and (may_all or one.number in shares),
        )
        for one in ports.listening(sandbox)
    ]


@login_required
@require_POST
def share(request: HttpRequest, code: str, port: int) -> HttpResponse:
    """Change who may open a port."""
    sandbox = access.get(request.user, Sandbox, code, May.MANAGE)
    wanted = request.POST.get("visibility", "")
    port_rights.share(user_of(request), sandbox, port, wanted)
    return redirect("sandboxes:ports", code)
