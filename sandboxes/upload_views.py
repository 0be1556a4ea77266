"""The addresses of uploads in pieces, as a tus client calls them."""

import base64
import binascii
import posixpath
from typing import IO, cast
from urllib.parse import quote

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from kode_web.teams import access
from kode_web.teams.access import May

from . import shells, uploads
from .errors import Invalid, NotReady
from .models import Sandbox
from .views import user_of

VERSION = "1.0.0"
PIECE = "application/offset+octet-stream"


def _running(request: HttpRequest, code: str) -> Sandbox:
    sandbox = access.get(request.user, Sandbox, code, May.DRIVE)
    if not sandbox.is_running:
        raise NotReady(f"This sandbox is {sandbox.state}. Resume it, then go on.")
    return sandbox


@login_required
@require_POST
def begin(request: HttpRequest, code: str) -> HttpResponse:
    """A new upload into `?folder=`, or to where the shell `?terminal=` is.

    Its metadata: `filename`, which may hold folders, and `conflict`, one of
    `uploads`' words for a file that is there already.
    """
    sandbox = _running(request, code)
    if terminal := request.GET.get("terminal"):
        folder = shells.folder(get_object_or_404(sandbox.terminals, code=terminal))
    else:
        folder = request.GET.get("folder", "")
    told = _metadata(request.headers.get("Upload-Metadata", ""))
    name = posixpath.normpath(told.get("filename", "").lstrip("/"))
    if name.startswith("../") or name in ("", ".", ".."):
        raise Invalid("A file needs a name inside the folder. Choose another.")
    upload = uploads.begin(
        sandbox,
        posixpath.join(folder, name),
        _number(request, "Upload-Length"),
        told.get("conflict", ""),
    )
    if upload.size_bytes == 0:
        uploads.finish(user_of(request), sandbox, upload)
    answer = _answer(201)
    answer["Location"] = reverse("sandboxes:upload", args=[code, upload.token])
    answer["Kode-Folder"] = quote(posixpath.dirname(upload.path))
    return answer


@login_required
@require_http_methods(["HEAD", "PATCH", "DELETE"])
def piece(request: HttpRequest, code: str, token: str) -> HttpResponse:
    """How far it is; the next piece of it; or no more of it."""
    sandbox = _running(request, code)
    upload, user = uploads.find(sandbox, token), user_of(request)
    match request.method:
        case "HEAD":
            there = uploads.progress(user, sandbox, upload)
            answer = _answer(200, there)
            answer["Upload-Length"] = str(upload.size_bytes)
            answer["Cache-Control"] = "no-store"
            return answer
        case "DELETE":
            uploads.cancel(sandbox, upload)
            return _answer(204)
    if request.content_type != PIECE:
        raise Invalid(f"A piece is of type {PIECE}.")
    at = _number(request, "Upload-Offset")
    body = cast(IO[bytes], request)
    return _answer(204, uploads.append(user, sandbox, upload, at, body))


def _answer(status: int, there: int | None = None) -> HttpResponse:
    answer = HttpResponse(status=status)
    answer["Tus-Resumable"] = VERSION
    if there is not None:
        answer["Upload-Offset"] = str(there)
    return answer


def _number(request: HttpRequest, name: str) -> int:
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise Invalid(f"{name} is a number of bytes.")
    return int(text)


def _metadata(header: str) -> dict[str, str]:
    """Names and values of a header like `name dmFsdWU=,other b3RoZXI=`."""
    found = {}
    for pair in filter(None, header.split(",")):
        name, _, value = pair.strip().partition(" ")
        try:
            found[name] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Invalid("The upload's metadata cannot be read.") from error
    return found
