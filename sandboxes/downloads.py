"""Answers that carry a sandbox's bytes. Nothing of a sandbox is ever a document:
a file comes as an image or as a download."""

from collections.abc import Callable, Iterator

from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

from kode_web.shortcuts import pieces

from . import archives, files, viewers
from .errors import Invalid
from .models import Sandbox

# Value of ?archive= -> its ending, its type, and what makes it.
ARCHIVES: dict[str, tuple[str, str, Callable[[Sandbox, str], Iterator[bytes]]]] = {
    "zip": (".zip", "application/zip", archives.zip),
    "tar": (".tar.gz", "application/gzip", archives.tar),
}


def file(
    request: HttpRequest, sandbox: Sandbox, path: str, *, raw: bool = False
) -> StreamingHttpResponse:
    """A file's bytes; `raw` gives an image as one, to be shown on our page."""
    entry, content = files.open_file(sandbox, path)
    kind = viewers.image_type(entry.name) if raw else ""
    response = StreamingHttpResponse(
        pieces(request, content), content_type=kind or "application/octet-stream"
    )
    if not kind:
        response["Content-Disposition"] = (
            content_disposition_header(True, entry.name) or "attachment"
        )
    return _closed(response)


def archive(
    request: HttpRequest, sandbox: Sandbox, path: str, form: str
) -> StreamingHttpResponse:
    """A folder as one file of that form."""
    if form not in ARCHIVES:
        raise Invalid("An archive is a zip or a tar.")
    ending, kind, make = ARCHIVES[form]
    name = path.strip("/").rpartition("/")[2] or "files"
    response = StreamingHttpResponse(
        pieces(request, make(sandbox, path)), content_type=kind
    )
    response["Content-Disposition"] = (
        content_disposition_header(True, f"{sandbox.name}-{name}{ending}")
        or "attachment"
    )
    return _closed(response)


def _closed(response: StreamingHttpResponse) -> StreamingHttpResponse:
    """Whatever the bytes are, the browser must not run them as ours."""
    response["X-Content-Type-Options"] = "nosniff"
    # Only an image is ever drawn from here, and SVG has its colours inside.
    response["Content-Security-Policy"] = (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    )
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    response["Cache-Control"] = "private, no-store"
    return response
