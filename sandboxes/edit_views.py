"""Pages that change a sandbox's files."""

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_http_methods, require_POST

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.access import May

from . import edits, files
from .edits import Conflict, Text
from .errors import Invalid, NotReady
from .file_views import tree_root, url_of
from .models import Sandbox
from .views import frame, user_of


def _running(request: HttpRequest, code: str) -> Sandbox:
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    if not sandbox.is_running:
        raise NotReady(f"This sandbox is {sandbox.state}. Resume it first.")
    return sandbox


@login_required
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, code: str) -> HttpResponse:
    """A text file in an editor; `?path=` names it, a new one with `?new=1`."""
    sandbox = _running(request, code)
    path = files.clean(sandbox, request.GET.get("path", ""))
    if request.method == "POST":
        return _save(request, sandbox, path)
    is_new = bool(request.GET.get("new"))
    text = Text(path, "", "") if is_new else edits.read(sandbox, path)
    return _show(request, sandbox, text)


def _save(request: HttpRequest, sandbox: Sandbox, path: str) -> HttpResponse:
    text, version = request.POST.get("text", ""), request.POST.get("version", "")
    try:
        edits.save(user_of(request), sandbox, path, text, version)
    except Conflict as conflict:
        theirs = conflict.theirs
        mine = Text(path, text.replace("\r\n", "\n"), theirs.version)
        return _show(request, sandbox, mine, theirs=theirs, status=409)
    return redirect(url_of(sandbox, path))


def _show(
    request: HttpRequest,
    sandbox: Sandbox,
    text: Text,
    *,
    theirs: Text | None = None,
    status: int = 200,
) -> HttpResponse:
    context: dict[str, Any] = frame(request, sandbox, "files") | {
        "text": text,
        "theirs": theirs,
        "back": url_of(sandbox, text.path),
        "again": edit_url(sandbox, text.path),
        "tree_root": tree_root(sandbox, text.path),
    }
    return page(request, "sandboxes/edit.html", context=context, status=status)


def edit_url(sandbox: Sandbox, path: str, **more: str) -> str:
    """The address of a file's editor."""
    at = reverse("sandboxes:edit", args=[sandbox.code])
    return f"{at}?{urlencode({'path': path, **more})}"


@login_required
@require_POST
def change(request: HttpRequest, code: str) -> HttpResponse:
    """Make, move or delete, as `action` says; then to where that is seen."""
    sandbox, user = _running(request, code), user_of(request)
    path, name = request.POST.get("path", ""), request.POST.get("name", "")
    match request.POST.get("action"):
        case "file":
            new = edits.free_path(sandbox, path, name)
            return redirect(edit_url(sandbox, new, new="1"))
        case "folder":
            return redirect(
                url_of(sandbox, edits.make_folder(user, sandbox, path, name))
            )
        case "move":
            new = edits.move(user, sandbox, path, name)
            return redirect(url_of(sandbox, new.rpartition("/")[0] or "/"))
        case "delete":
            return redirect(url_of(sandbox, edits.delete(user, sandbox, path)))
    raise Invalid("There is no such action.")
