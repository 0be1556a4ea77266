"""`/files` of one sandbox: downloads and uploads at the speed of the machine.

The agent inside opens the file and passes the descriptor; the bytes never go
through the sandbox's processes.
"""

import asyncio
import mimetypes
import os
import posixpath
import re
import zlib
from collections.abc import AsyncIterator
from email.utils import formatdate
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from sandboxes.local.contract import BoxGone

from .agent import AgentLost
from .context import Services
from .errors import answer, http_error
from .multipart import Form

CHUNK_BYTES = 256 << 10
META_HEADER = "x-metadata-"
META_KEY_BYTES = 246  # so that `user.e2b.` and the key fit in a name of 255
META_BYTES = 4096  # all of one file, keys with their prefix
META_PREFIX_BYTES = len("user.e2b.")
RANGE = re.compile(r"bytes=(\d*)-(\d*)$")

PROBLEMS = (OSError, LookupError, ValueError, AgentLost, BoxGone)


async def download(request: Request, services: Services) -> Response:
    """Send a file: whole, a range, or gzip where identity is refused."""
    path = request.query_params.get("path", "")
    coding = accepted(request.headers.get("accept-encoding", ""))
    if coding is None:
        return answer(406, "no acceptable encoding: identity and gzip are served")
    user = request.query_params.get("username", "")
    try:
        path, fd = await services.agent.open_read(user, path)
    except FileNotFoundError:
        return answer(404, f"path '{path}' does not exist")
    except IsADirectoryError:
        return answer(400, f"path '{path}' is a directory")
    except PROBLEMS as problem:
        return http_error(problem, path)
    state = os.fstat(fd)
    headers = {
        "Vary": "Accept-Encoding",
        "Last-Modified": formatdate(state.st_mtime, usegmt=True),
        "Content-Disposition": f"inline; filename*=utf-8''{base(path)}",
    }
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    if coding == "gzip":
        headers["Content-Encoding"] = "gzip"
        body = gzipped(read(fd, None))
        return StreamingResponse(body, headers=headers, media_type=kind)
    return plain(request, fd, state.st_size, headers, kind)


def plain(
    request: Request, fd: int, size: int, headers: dict[str, str], kind: str
) -> Response:
    """The file or a range of it. A size of 0 may be a file of /proc: read on."""
    status, start, length = 200, 0, size
    headers["Accept-Ranges"] = "bytes"
    if size and (found := RANGE.match(request.headers.get("range", ""))):
        start, length = part(found[1], found[2], size)
        if length <= 0:
            os.close(fd)
            refused = {"Content-Range": f"bytes */{size}"}
            problem = {"code": 416, "message": "the range is not in the file"}
            return JSONResponse(problem, 416, headers=refused)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
        os.lseek(fd, start, os.SEEK_SET)
    if size:
        headers["Content-Length"] = str(length)
    body = read(fd, length if size else None)
    return StreamingResponse(body, status, headers=headers, media_type=kind)


def part(first: str, last: str, size: int) -> tuple[int, int]:
    """(start, length) of a range as written; a length below 1 is outside."""
    if not first:
        length = min(int(last or 0), size)
        return size - length, length
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    return start, end - start + 1


async def read(fd: int, length: int | None) -> AsyncIterator[bytes]:
    """The next `length` bytes, or all; closes the descriptor."""
    try:
        while length is None or length > 0:
            want = CHUNK_BYTES if length is None else min(CHUNK_BYTES, length)
            data = await asyncio.to_thread(os.read, fd, want)
            if not data:
                return
            if length is not None:
                length -= len(data)
            yield data
    finally:
        os.close(fd)


async def gzipped(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(level=1, wbits=31)
    async for data in body:
        yield await asyncio.to_thread(packer.compress, data)
    yield packer.flush()


async def gunzipped(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unpack piece by piece. Raises ValueError on what is not gzip."""
    opener = zlib.decompressobj(wbits=47)
    async for data in body:
        while data:
            try:
                yield await asyncio.to_thread(opener.decompress, data, CHUNK_BYTES)
            except zlib.error as problem:
                raise ValueError("the body is not gzip") from problem
            data = opener.unconsumed_tail


def accepted(header: str) -> str | None:
    """identity unless the client refuses it, then gzip, then None."""
    weights: dict[str, float] = {}
    for item in header.lower().split(","):
        name, _, weight = item.strip().partition(";q=")
        if name:
            weights[name] = float(weight) if re.fullmatch(r"[\d.]+", weight) else 1.0
    other = weights.get("*", 1.0)
    if weights.get("identity", other if other == 0 else 1.0) > 0:
        return "identity"
    return "gzip" if weights.get("gzip", weights.get("*", 0.0)) > 0 else None


async def upload(request: Request, services: Services) -> Response:
    """Write files from a form's `file` parts, or one from the raw body."""
    try:
        metadata = upload_metadata(request)
        kind = request.headers.get("content-type", "")
        body: AsyncIterator[bytes] = request.stream()
        if request.headers.get("content-encoding", "identity") == "gzip":
            body = gunzipped(body)
        if kind.startswith("multipart/form-data"):
            written = await save_form(request, services, Form(kind, body), metadata)
        elif kind.startswith("application/octet-stream"):
            if "path" not in request.query_params:
                return answer(400, "path is required for a raw body")
            path = request.query_params["path"]
            written = [await save(request, services, path, metadata, body)]
        else:
            wanted = "multipart/form-data or application/octet-stream"
            return answer(400, f"unsupported content type: {kind}, expected {wanted}")
    except Refused as refusal:
        return refusal.response
    except ClientDisconnect:
        return answer(400, "the upload was broken off")
    except ValueError as problem:
        return answer(400, str(problem))
    return JSONResponse(written)


class Refused(Exception):
    """An upload that ends with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


async def save_form(
    request: Request, services: Services, form: Form, metadata: dict[str, str]
) -> list[dict[str, object]]:
    """Each `file` part under the query's path, else under its full filename."""
    written: list[dict[str, object]] = []
    async for item in form.parts():
        path = request.query_params.get("path") or item.filename
        if item.name != "file" or not path:
            async for _ in form.chunks():
                pass
            continue
        if any(done["path"] == path or done["asked"] == path for done in written):
            text = f"you cannot upload multiple files to the same path '{path}'"
            raise Refused(answer(400, text))
        done = await save(request, services, path, metadata, form.chunks())
        written.append(done | {"asked": path})
    for done in written:
        del done["asked"]
    return written


async def save(
    request: Request,
    services: Services,
    path: str,
    metadata: dict[str, str],
    chunks: AsyncIterator[bytes],
) -> dict[str, object]:
    user = request.query_params.get("username", "")
    try:
        path, kept, fd = await services.agent.open_write(user, path, metadata)
    except IsADirectoryError as problem:
        raise Refused(answer(400, f"path is a directory: {path}")) from problem
    except PROBLEMS as problem:
        raise Refused(http_error(problem, path)) from problem
    try:
        async for data in chunks:
            await asyncio.to_thread(write_all, fd, data)
    except OSError as problem:
        raise Refused(http_error(problem, path)) from problem
    finally:
        os.close(fd)
    info: dict[str, object] = {"path": path, "name": posixpath.basename(path)}
    return info | {"type": "file"} | ({"metadata": kept} if kept else {})


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def upload_metadata(request: Request) -> dict[str, str]:
    """What the X-Metadata- headers ask to keep. ValueError when it cannot be kept."""
    found = {
        name[len(META_HEADER) :]: value
        for name, value in request.headers.items()
        if name.startswith(META_HEADER) and len(name) > len(META_HEADER)
    }
    for key, value in found.items():
        if len(key) > META_KEY_BYTES or not (key + value).isprintable():
            raise ValueError(f"invalid metadata: {key!r}")
        if not (key + value).isascii():
            raise ValueError(f"invalid metadata: {key!r} is not ASCII")
    sizes = (META_PREFIX_BYTES + len(key) + len(found[key]) for key in found)
    if sum(sizes) > META_BYTES:
        raise ValueError(f"invalid metadata: more than {META_BYTES} bytes")
    return found


def base(path: str) -> str:
    return quote(posixpath.basename(path), safe="")
