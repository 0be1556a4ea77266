"""Pages of a sandbox's files. Nothing of a sandbox is ever served as a document:
a file comes as text on our page, as an image, or as a download."""

import posixpath
from dataclasses import dataclass
from typing import IO, Any, cast
from urllib.parse import quote

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import content_disposition_header, urlencode
from django.views.decorators.http import require_http_methods

from kode_web.shortcuts import page, pieces
from kode_web.teams import access
from kode_web.teams.access import May

from . import actions, files, gateway
from .errors import Invalid, SandboxError
from .files import FileEntry
from .models import Sandbox
from .views import frame, user_of

MAX_LINES = 5_000
# Shown as images, by the end of the name; nosniff keeps them that.
IMAGES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
}


@dataclass(frozen=True)
class Row:
    """A line of a folder's table."""

    entry: FileEntry
    url: str


def url_of(sandbox: Sandbox, path: str) -> str:
    """The address of a file's page."""
    at = reverse("sandboxes:files", args=[sandbox.code])
    return at + quote(path.lstrip("/")) if path.strip("/") else at + "%2F"


@login_required
@require_http_methods(["GET", "POST"])
def show(request: HttpRequest, code: str, path: str = "") -> HttpResponseBase:
    """A folder's table or a file's text; by `?download`, `?raw`, `?archive` bytes.

    A POST puts files into the folder.
    """
    may = May.DRIVE if request.method == "POST" else May.VIEW
    sandbox = access.get(request.user, Sandbox, code, may)
    if not sandbox.is_running:
        context = frame(request, sandbox, "files")
        return page(request, "sandboxes/files.html", context=context)
    where = files.clean(sandbox, f"/{path}" if path else "")
    if request.method == "POST":
        return _upload(request, sandbox, where)
    if "archive" in request.GET:
        return _archive(request, sandbox, where)
    if "download" in request.GET or "raw" in request.GET:
        return _bytes(request, sandbox, where)
    return _page(request, sandbox, where)


def _upload(request: HttpRequest, sandbox: Sandbox, where: str) -> HttpResponse:
    """Write the files that were sent; one of the same name is replaced."""
    sent = request.FILES.getlist("files")
    if not sent:
        raise Invalid("No file was chosen. Choose one, then upload.")
    for file in sent:
        path = files.clean(sandbox, posixpath.join(where, file.name or "file"))
        gateway.upload(sandbox, path, cast(IO[bytes], file))
        actions.record(
            sandbox,
            "file.uploaded",
            actor=user_of(request),
            path=path[:500],
            size_bytes=file.size,
        )
    return redirect(url_of(sandbox, where))


def _page(request: HttpRequest, sandbox: Sandbox, where: str) -> HttpResponse:
    context = frame(request, sandbox, "files") | {
        "path": where,
        "crumbs": _crumbs(sandbox, where),
        "here": url_of(sandbox, where),
    }
    status = 200
    try:
        entry = files.stat(sandbox, where) if where != "/" else None
        if entry is None or entry.is_dir:
            context |= _folder(sandbox, where)
        else:
            context |= _file(sandbox, entry)
    except SandboxError as error:
        context["error"], status = error, error.status
    return page(request, "sandboxes/files.html", "pane", context, status=status)


def _crumbs(sandbox: Sandbox, where: str) -> list[tuple[str, str]]:
    """Each folder above, and the last one, with its address."""
    found, so_far = [("/", url_of(sandbox, "/"))], ""
    for name in filter(None, where.split("/")):
        so_far += f"/{name}"
        found.append((name, url_of(sandbox, so_far)))
    return found


def _folder(sandbox: Sandbox, where: str) -> dict[str, Any]:
    entries, is_cut = files.list_dir(sandbox, where)
    rows = [Row(entry, url_of(sandbox, entry.path)) for entry in entries]
    return {"is_dir": True, "rows": rows, "is_cut": is_cut}


def _file(sandbox: Sandbox, entry: FileEntry) -> dict[str, Any]:
    context: dict[str, Any] = {"is_dir": False, "entry": entry}
    if _image_type(entry.name):
        return context | {"is_image": True}
    content = files.read(sandbox, entry.path)
    if b"\0" in content:
        return context | {"is_binary": True}
    lines = content.decode(errors="replace").splitlines()
    is_cut = len(content) < entry.size_bytes or len(lines) > MAX_LINES
    query = urlencode({"path": entry.path})
    at = reverse("sandboxes:edit", args=[sandbox.code])
    return context | {
        "lines": lines[:MAX_LINES],
        "is_cut": is_cut,
        "edit_url": "" if is_cut else f"{at}?{query}",
    }


def _image_type(name: str) -> str:
    return IMAGES.get(name.rpartition(".")[2].lower(), "")


def _closed(response: StreamingHttpResponse) -> StreamingHttpResponse:
    """Whatever the bytes are, the browser must not run them as ours."""
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    response["Cache-Control"] = "private, no-store"
    return response


def _bytes(request: HttpRequest, sandbox: Sandbox, where: str) -> StreamingHttpResponse:
    entry, content = files.open_file(sandbox, where)
    kind = _image_type(entry.name) if "raw" in request.GET else ""
    response = StreamingHttpResponse(
        pieces(request, content), content_type=kind or "application/octet-stream"
    )
    if not kind:
        response["Content-Disposition"] = (
            content_disposition_header(True, entry.name) or "attachment"
        )
        actions.record(
            sandbox, "file.downloaded", actor=user_of(request), path=entry.path[:500]
        )
    return _closed(response)


def _archive(
    request: HttpRequest, sandbox: Sandbox, where: str
) -> StreamingHttpResponse:
    name = where.strip("/").rpartition("/")[2] or "files"
    response = StreamingHttpResponse(
        pieces(request, files.archive(sandbox, where)), content_type="application/gzip"
    )
    response["Content-Disposition"] = (
        content_disposition_header(True, f"{sandbox.name}-{name}.tar.gz")
        or "attachment"
    )
    actions.record(sandbox, "file.exported", actor=user_of(request), path=where[:500])
    return _closed(response)
