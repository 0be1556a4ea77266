"""What is done to terminals by a form: open, rename, close, drop files into."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_POST

from kode_web.teams import access
from kode_web.teams.access import May

from . import shells
from .errors import Gone, Invalid
from .models import Sandbox, Terminal
from .views import go_back, user_of


@login_required
@require_POST
def open_terminal(request: HttpRequest, code: str) -> HttpResponse:
    """Another shell, opened when its page comes."""
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    if not sandbox.is_alive:
        raise Gone("This sandbox has ended. Make a new one.")
    terminal = shells.create_row(sandbox, user_of(request))
    if request.POST.get("next"):
        return go_back(request, sandbox)
    at = redirect("sandboxes:detail", code)
    at["Location"] += f"?terminal={terminal.code}"
    return at


@login_required
@require_POST
def close_terminal(request: HttpRequest, code: str, terminal: str) -> HttpResponse:
    """End a shell for everybody."""
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    row = get_object_or_404(sandbox.terminals, code=terminal)
    shells.close(user_of(request), row)
    return redirect("sandboxes:detail", code)


@login_required
@require_POST
def rename(request: HttpRequest, code: str, terminal: str) -> HttpResponse:
    """Another name, of what it is there for."""
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    row = get_object_or_404(sandbox.terminals, code=terminal)
    name = " ".join(request.POST.get("name", "").split())
    longest = Terminal.NAME_LENGTH
    if not 0 < len(name) <= longest:
        raise Invalid(f"A name has 1 to {longest} characters. Choose another.")
    row.name = name
    row.save(update_fields=["name"])
    at = redirect("sandboxes:detail", code)
    at["Location"] += f"?terminal={row.code}"
    return at
