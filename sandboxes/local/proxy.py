"""Passes HTTP requests on to a port of a sandbox, streaming both ways.

Each request has a connection of its own: it costs 0.4 ms and never mixes clients.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from .addresses import OWN_HEADERS, Address, Refused, closed, gone
from .contract import BoxGone
from .sandbox import Sandbox

READ_BYTES = 64 << 10
HEAD_BYTES = 64 << 10  # a response's status line and headers
TLS_S = 5.0  # for a handshake with a server that may not know TLS
TLS_NAME = "localhost"  # what a server in a sandbox is asked for
HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
DROPPED = HOP_BY_HOP | {name.encode() for name in OWN_HEADERS}

Pairs = list[tuple[bytes, bytes]]


class Broken(Exception):
    """The server in the sandbox did not speak HTTP, or stopped in the middle."""


@dataclass(frozen=True)
class Head:
    """The beginning of a response."""

    status: int
    headers: Pairs

    def get(self, wanted: bytes) -> bytes:
        values = [value for name, value in self.headers if name.lower() == wanted]
        return b", ".join(values)


async def forward(
    sandbox: Sandbox, address: Address, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request with what the server at the address says. Raises Refused."""
    tls = tls_of(sandbox, address)
    try:
        reader, writer = await asyncio.open_connection(
            sock=await dial(sandbox, address),
            limit=HEAD_BYTES,
            ssl=tls,
            server_hostname=TLS_NAME if tls else None,
            ssl_handshake_timeout=TLS_S if tls else None,
        )
    except OSError as problem:
        raise no_tls(address) from problem
    host = sandbox.record.network.get("maskRequestHost")
    mask = str(host).replace("${PORT}", str(address.port)) if host else None
    answering = asyncio.create_task(answer(reader, scope["method"], send))
    asking = asyncio.create_task(ask(writer, scope, receive, mask))
    try:
        await asyncio.wait((answering, asking), return_when=asyncio.FIRST_COMPLETED)
        if answering.done() or not asking.result():
            await answering
    except Broken as problem:
        text = f"The server in the sandbox gave no proper answer: {problem}"
        raise Refused(502, text, address) from problem
    finally:
        for task in (answering, asking):
            task.cancel()
        await asyncio.gather(answering, asking, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def tls_of(sandbox: Sandbox, address: Address) -> ssl.SSLContext | None:
    """For a port whose server speaks TLS, with a certificate that nobody signed.

    Nobody can come between: the connection is made inside the sandbox.
    """
    if address.port not in sandbox.record.network.get("httpsPorts", ()):
        return None
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def no_tls(address: Address) -> Refused:
    return Refused(502, "The server in the sandbox does not speak TLS", address)


async def dial(sandbox: Sandbox, address: Address) -> socket.socket:
    """A connection to the address. Raises Refused when nobody listens."""
    if address.port == 0:
        raise closed(address)
    try:
        return await sandbox.box.dial(address.port)
    except BoxGone as problem:
        raise gone(address) from problem
    except OSError as problem:
        raise closed(address) from problem


async def ask(
    writer: asyncio.StreamWriter, scope: Scope, receive: Receive, mask: str | None
) -> bool:
    """Send the request; True when the client left, False when nobody reads it."""
    headers: Pairs = scope["headers"]
    chunked = any(name == b"transfer-encoding" for name, _ in headers)
    try:
        writer.write(request_head(scope, mask, chunked=chunked))
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return True
            body = message.get("body", b"")
            if body:
                writer.write(b"%x\r\n%b\r\n" % (len(body), body) if chunked else body)
            if chunked and not message.get("more_body"):
                writer.write(b"0\r\n\r\n")
                chunked = False
            await writer.drain()
    except OSError:
        return False


def request_head(scope: Scope, mask: str | None, *, chunked: bool) -> bytes:
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    lines = [b"%b %b HTTP/1.1" % (scope["method"].encode(), target)]
    for name, value in scope["headers"]:
        if name == b"host" and mask is not None:
            value = mask.encode("latin-1", "replace")
        unsafe = name == b"expect" or (chunked and name == b"content-length")
        if name not in DROPPED and not unsafe:
            lines.append(b"%b: %b" % (usual(name), value))
    lines.append(b"Connection: close")
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def usual(name: bytes) -> bytes:
    """A header's name as servers know it: `Content-Type`."""
    return b"-".join(part.capitalize() for part in name.split(b"-"))


async def answer(reader: asyncio.StreamReader, method: str, send: Send) -> None:
    """Pass the response on. Raises Broken before its beginning was sent."""
    head = await read_head(reader)
    kept = [pair for pair in head.headers if pair[0].lower() not in HOP_BY_HOP]
    await send({"type": "http.response.start", "status": head.status, "headers": kept})
    try:
        if method != "HEAD" and head.status not in (204, 304):
            async for data in body_of(reader, head):
                body = {"type": "http.response.body", "body": data, "more_body": True}
                await send(body)
    except Broken:
        return  # the client sees a broken response, as the server meant it
    await send({"type": "http.response.body", "body": b""})


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The final response's head; those of 1xx are passed over."""
    while True:
        try:
            text = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as problem:
            raise Broken("no end of the headers") from problem
        except OSError as problem:
            raise Broken(str(problem)) from problem
        line, *rows = text[:-4].split(b"\r\n")
        parts = line.split(b" ", 2)
        if not line.startswith(b"HTTP/1.") or len(parts) < 2 or not parts[1].isdigit():
            raise Broken("no status line")
        status = int(parts[1])
        if not 100 <= status <= 599:
            raise Broken(f"status {status}")
        if status >= 200:
            return Head(status, [pair(row) for row in rows])


def pair(row: bytes) -> tuple[bytes, bytes]:
    """A header's name and value. Raises Broken for what no client may see."""
    name, _, value = row.partition(b":")
    if not NAME.fullmatch(name) or CONTROL.search(value):
        raise Broken("a header is malformed")
    return name, value.strip()


async def body_of(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    """The body piece by piece as it arrives. Raises Broken when it is cut."""
    if head.get(b"transfer-encoding").lower().endswith(b"chunked"):
        while size := await chunk_size(reader):
            async for data in exactly(reader, size):
                yield data
            await exact(reader, 2)
        return
    length = head.get(b"content-length")
    if length.isdigit():
        async for data in exactly(reader, int(length)):
            yield data
        return
    while data := await some(reader, READ_BYTES):
        yield data


async def chunk_size(reader: asyncio.StreamReader) -> int:
    try:
        line = await reader.readuntil(b"\r\n")
        return int(line.partition(b";")[0], 16)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as problem:
        raise Broken("a chunk is cut") from problem
    except (OSError, ValueError) as problem:
        raise Broken(str(problem)) from problem


async def exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size > 0:
        data = await some(reader, min(size, READ_BYTES))
        if not data:
            raise Broken("the body is cut")
        size -= len(data)
        yield data


async def exact(reader: asyncio.StreamReader, size: int) -> bytes:
    return b"".join([data async for data in exactly(reader, size)])


async def some(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.read(size)
    except OSError as problem:
        raise Broken(str(problem)) from problem
