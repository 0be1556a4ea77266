"""Pages of commands: run one, watch it, and the ledger of all that were run."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import new_code

from . import exec
from .models import Command, Sandbox
from .views import frame, user_of

PER_PAGE = 50
# Value of ?show= -> its words.
SHOWN = {
    "": "All",
    "running": "Running",
    "failed": "Failed",
    "people": "By people",
    "agents": "By agents",
}


@login_required
@require_http_methods(["GET", "POST"])
def index(request: HttpRequest, code: str) -> HttpResponse:
    """The ledger, newest first, and the form that runs a command."""
    posted = request.method == "POST"
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE if posted else May.VIEW)
    if posted:
        command = exec.start(
            user_of(request),
            sandbox,
            request.POST.get("text", "").replace("\r\n", "\n"),
            key=request.POST.get("key", "")[:64],
            cwd=request.POST.get("cwd", "").strip()[:500],
            limited=not request.POST.get("background"),
        )
        return redirect("sandboxes:command", code, command.code)
    show = request.GET.get("show", "")
    text = request.GET.get("q", "").strip()[:200]
    rows = _shown(sandbox, show, text).select_related("actor")
    found = Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))
    context = frame(request, sandbox, "exec") | {
        "commands": found,
        "views": SHOWN.items(),
        "show": show,
        "q": text,
        "is_live": any(command.is_running for command in found),
        "key": new_code(),
    }
    return page(request, "sandboxes/exec.html", "rows", context)


def _shown(sandbox: Sandbox, show: str, text: str) -> Any:
    rows = sandbox.commands.all()
    match show:
        case "running":
            rows = rows.filter(ended_at=None)
        case "failed":
            rows = rows.exclude(ended_at=None).exclude(exit_code=0)
        case "people":
            rows = rows.filter(agent_code="")
        case "agents":
            rows = rows.exclude(agent_code="")
    return rows.filter(text__icontains=text) if text else rows


def _get(
    request: HttpRequest, code: str, command: str, may: May = May.VIEW
) -> tuple[Sandbox, Command]:
    sandbox = access.get(request.user, Sandbox, code, may)
    rows = sandbox.commands.select_related("actor", "killed_by")
    return sandbox, get_object_or_404(rows, code=command)


@login_required
@require_GET
def show(request: HttpRequest, code: str, command: str) -> HttpResponse:
    """One command with all that is kept of its output."""
    sandbox, row = _get(request, code, command)
    pieces = exec.output(row)
    context = frame(request, sandbox, "exec") | {
        "command": row,
        "pieces": pieces,
        "after": pieces[-1].at + len(pieces[-1].text) if pieces else 0,
        "sdk": sdk_code(row),
        "key": new_code(),
    }
    return page(request, "sandboxes/command.html", "facts", context)


def sdk_code(command: Command) -> str:
    """The same command as a program that uses the SDK."""
    options = [repr(command.text)]
    cwd = command.cwd or command.sandbox.workdir
    if cwd:
        options.append(f"cwd={cwd!r}")
    options.append(f"timeout={command.timeout_s}")
    sandbox_id = command.sandbox.sandbox_id
    return (
        "from e2b import Sandbox\n\n"
        f"sandbox = Sandbox.connect({sandbox_id!r})\n"
        f"result = sandbox.commands.run({', '.join(options)})\n"
        "print(result.exit_code, result.stdout, result.stderr)\n"
    )


@login_required
@require_GET
def download(request: HttpRequest, code: str, command: str) -> HttpResponse:
    """What is kept of its output, as a text file."""
    _, row = _get(request, code, command)
    text = "".join(piece.text for piece in exec.output(row))
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    name = f"command-{row.started_at:%Y%m%d-%H%M%S}.txt"
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["Cache-Control"] = "private, no-store"
    return response


@login_required
@require_POST
def kill(request: HttpRequest, code: str, command: str) -> HttpResponse:
    """End it and what it started."""
    _, row = _get(request, code, command, May.DRIVE)
    exec.kill(user_of(request), row)
    return redirect("sandboxes:command", code, command)
