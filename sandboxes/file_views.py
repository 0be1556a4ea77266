"""Pages of a sandbox's files: a folder, a file, the tree beside them, a search."""

import posixpath
from dataclasses import dataclass
from typing import IO, Any, cast
from urllib.parse import quote

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.http import require_GET, require_http_methods

from kode_web.shortcuts import page, wants_part
from kode_web.teams import access
from kode_web.teams.access import May

from . import actions, downloads, files, gateway, markdown, search, viewers
from .errors import Exists, Invalid, NotFound, NotReady, SandboxError
from .files import FileEntry
from .models import Sandbox
from .views import frame, user_of

MAX_LINES = 5_000
MAX_DEPTH = 12  # of what the tree opens by itself
HEAD_BYTES = 4096
# How a file can be seen -> how it is said.
WORDS = {
    "image": "Image",
    "pdf": "Pages",
    "markdown": "Read",
    "notebook": "Notebook",
    "text": "Text",
    "hex": "Bytes",
}


@dataclass(frozen=True)
class Row:
    """A line of a folder's table; no address when its name is no text."""

    entry: FileEntry
    url: str


def url_of(sandbox: Sandbox, path: str) -> str:
    """The address of a file's page."""
    at = reverse("sandboxes:files", args=[sandbox.code])
    return at + quote(path.lstrip("/")) if path.strip("/") else at + "%2F"


@login_required
@require_http_methods(["GET", "POST"])
def show(request: HttpRequest, code: str, path: str = "") -> HttpResponseBase:
    """A folder's table or a file; by `?download`, `?raw`, `?archive=zip` its bytes.

    A POST puts files into the folder.
    """
    may = May.DRIVE if request.method == "POST" else May.VIEW
    sandbox = access.get(request.user, Sandbox, code, may)
    if not sandbox.is_running:
        if wants_part(request):
            return HttpResponse(status=204, headers={"HX-Refresh": "true"})
        context = frame(request, sandbox, "files")
        return page(request, "sandboxes/files.html", context=context)
    where = files.clean(sandbox, f"/{path}" if path else "")
    if request.method == "POST":
        return _upload(request, sandbox, where)
    if form := request.GET.get("archive"):
        answer = downloads.archive(request, sandbox, where, form)
        kind = "file.exported"
    elif "download" in request.GET or "raw" in request.GET:
        is_raw = "raw" in request.GET
        answer = downloads.file(request, sandbox, where, raw=is_raw)
        kind = "" if is_raw else "file.downloaded"
    else:
        return _page(request, sandbox, where)
    if kind:
        actions.record(sandbox, kind, actor=user_of(request), path=where[:500])
    return answer


def _upload(request: HttpRequest, sandbox: Sandbox, where: str) -> HttpResponse:
    """Write the files of a form, for a browser without scripts."""
    sent = request.FILES.getlist("files")
    if not sent:
        raise Invalid("No file was chosen. Choose one, then upload.")
    paths = [
        files.clean(sandbox, posixpath.join(where, file.name or "file"))
        for file in sent
    ]
    if not request.POST.get("replace"):
        for path in paths:
            _check_free(sandbox, path)
    for path, file in zip(paths, sent, strict=True):
        gateway.upload(sandbox, path, cast(IO[bytes], file))
        actions.record(
            sandbox,
            "file.uploaded",
            actor=user_of(request),
            path=path[:500],
            size_bytes=file.size,
        )
    return redirect(url_of(sandbox, where))


def _check_free(sandbox: Sandbox, path: str) -> None:
    try:
        files.stat(sandbox, path)
    except NotFound:
        return
    raise Exists(f"{path} is there already. Nothing was uploaded.")


def _page(request: HttpRequest, sandbox: Sandbox, where: str) -> HttpResponse:
    context = frame(request, sandbox, "files") | {
        "path": where,
        "crumbs": _crumbs(sandbox, where),
        "here": url_of(sandbox, where),
        "tree_root": tree_root(sandbox, where),
    }
    status = 200
    try:
        entry = files.stat(sandbox, where) if where != "/" else None
        if entry is None or entry.is_dir:
            context |= _folder(sandbox, where) | _search(request, sandbox, where)
        else:
            context |= _file(request, sandbox, entry)
    except SandboxError as error:
        context["error"], status = error, error.status
    return page(request, "sandboxes/files.html", "pane", context, status=status)


def tree_root(sandbox: Sandbox, where: str) -> str:
    """Where the tree begins: the working folder, or / for what is outside of it."""
    home = files.clean(sandbox, "")
    return home if f"{where}/".startswith(f"{home}/") else "/"


def _crumbs(sandbox: Sandbox, where: str) -> list[tuple[str, str]]:
    """Each folder above, and the last one, with its address."""
    found, so_far = [("/", url_of(sandbox, "/"))], ""
    for name in filter(None, where.split("/")):
        so_far += f"/{name}"
        found.append((name, url_of(sandbox, so_far)))
    return found


def _rows(sandbox: Sandbox, where: str) -> tuple[list[Row], bool]:
    entries, is_cut = files.list_dir(sandbox, where)
    rows = [
        Row(entry, url_of(sandbox, entry.path) if entry.is_named else "")
        for entry in entries
    ]
    return rows, is_cut


def _folder(sandbox: Sandbox, where: str) -> dict[str, Any]:
    rows, is_cut = _rows(sandbox, where)
    return {"is_dir": True, "rows": rows, "is_cut": is_cut, "watched": where}


def _search(request: HttpRequest, sandbox: Sandbox, where: str) -> dict[str, Any]:
    """What `?q=` finds below the folder: names, or with `?in=text` lines."""
    query = request.GET.get("q", "")
    if not query:
        return {}
    in_text = request.GET.get("in") == "text"
    find = search.by_text if in_text else search.by_name
    found = find(sandbox, where, query)
    return {
        "query": query,
        "in_text": in_text,
        "found": found,
        "hits": [
            (hit, url_of(sandbox, hit.path), hit.path.removeprefix(where).lstrip("/"))
            for hit in found.hits
        ],
        "skipped": search.SKIPPED,
    }


def _file(request: HttpRequest, sandbox: Sandbox, entry: FileEntry) -> dict[str, Any]:
    """What the page of a file needs, for the view that `?as=` asks for."""
    if not entry.is_file:
        raise Invalid("This is a pipe, a socket or a device, and cannot be read here.")
    head = files.read_at(sandbox, entry.path, 0, HEAD_BYTES)
    views = viewers.views_of(entry.name, head)
    view = request.GET.get("as", "")
    view = view if view in views else views[0]
    context: dict[str, Any] = {
        "is_dir": False,
        "entry": entry,
        "view": view,
        "views": [(name, WORDS[name]) for name in views],
        "watched": posixpath.dirname(entry.path),
    }
    match view:
        case "image" | "pdf":
            return context
        case "hex":
            return context | _hex(request, sandbox, entry)
        case "notebook":
            data = files.read(sandbox, entry.path, viewers.MAX_NOTEBOOK_BYTES)
            if book := viewers.notebook(data):
                return context | {"notebook": book, "is_cut": book.is_cut}
            context["view"] = "text"
    return context | _text(sandbox, entry, context["view"])


def _text(sandbox: Sandbox, entry: FileEntry, view: str) -> dict[str, Any]:
    content = files.read(sandbox, entry.path)
    text = content.decode(errors="replace")
    query = urlencode({"path": entry.path})
    at = reverse("sandboxes:edit", args=[sandbox.code])
    lines = text.splitlines()
    is_cut = len(content) < entry.size_bytes or len(lines) > MAX_LINES
    context = {"is_cut": is_cut, "edit_url": "" if is_cut else f"{at}?{query}"}
    if view == "markdown":
        return context | {"html": markdown.render(text)}
    return context | {"lines": lines[:MAX_LINES]}


def _hex(request: HttpRequest, sandbox: Sandbox, entry: FileEntry) -> dict[str, Any]:
    """A page of the dump, from `?at=`."""
    size, asked = viewers.HEX_BYTES, request.GET.get("at", "")
    at = int(asked) if asked.isdecimal() and len(asked) < 16 else 0
    at = max(0, min(at, entry.size_bytes - 1)) // size * size
    last = max(0, entry.size_bytes - 1) // size * size
    return {
        "dump": viewers.hex_rows(files.read_at(sandbox, entry.path, at, size), at),
        "before": at - size if at else None,
        "after": at + size if at < last else None,
        "last": last if at < last else None,
    }


@login_required
@require_GET
def tree(request: HttpRequest, code: str) -> HttpResponse:
    """A folder of the tree, `?path=`, opened as far as `?to=`."""
    sandbox = access.get(request.user, Sandbox, code)
    if not sandbox.is_running:
        raise NotReady(f"This sandbox is {sandbox.state}.")
    path = files.clean(sandbox, request.GET.get("path", ""))
    to = files.clean(sandbox, request.GET.get("to", path))
    context = {"sandbox": sandbox, "node": _node(sandbox, path, to), "to": to}
    return page(request, "sandboxes/tree.html", context=context)


def _node(sandbox: Sandbox, path: str, to: str, depth: int = 0) -> dict[str, Any]:
    """A folder with its rows; that on the way to `to` with its own rows again."""
    rows, is_cut = _rows(sandbox, path)
    inner: dict[str, Any] = {}
    for row in rows:
        is_on_way = f"{to}/".startswith(f"{row.entry.path}/")
        if row.entry.is_dir and is_on_way and depth < MAX_DEPTH:
            inner = _node(sandbox, row.entry.path, to, depth + 1)
    return {"path": path, "rows": rows, "is_cut": is_cut, "inner": inner}
