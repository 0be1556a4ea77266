"""Requests of a preview, passed on as they come, and answers as they come back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.conf import settings

from kode_web.preview_headers import for_browser, for_sandbox
from sandboxes import gateway

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]

CONNECT_S = 10
MAX_CONNECTIONS = 500
SAYING_BYTES = 4096
# Beside whatever the page says of itself: a pane of the dashboard may show it.
FRAMED_BY = f"frame-ancestors 'self' {settings.SITE_URL}".encode()


class NoAnswer(Exception):
    """The server in the sandbox sent no proper answer."""


class Client:
    """What the browser says: its body in pieces, and whether it is still there."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)

    async def listen(self) -> None:
        """Take in all it says; returns when it has gone away."""
        while (message := await self._receive())["type"] == "http.request":
            if body := message.get("body"):
                await self._pieces.put(body)
            if not message.get("more_body"):
                await self._pieces.put(None)

    async def body(self) -> AsyncIterator[bytes]:
        """The body, no faster than it is passed on."""
        while (piece := await self._pieces.get()) is not None:
            yield piece


async def relay_request(
    scope: MutableMapping[str, Any],
    receive: Receive,
    send: Send,
    target: gateway.Target,
    cookie_name: str,
) -> None:
    """Pass a request on and stream the answer back. Raises NoAnswer before it."""
    client = Client(receive)
    listening = asyncio.ensure_future(client.listen())
    answering = asyncio.ensure_future(
        _answer(_request(scope, client, target, cookie_name), send, target, cookie_name)
    )
    try:
        await asyncio.wait({listening, answering}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            await answering
    finally:
        for task in (listening, answering):
            task.cancel()
        await asyncio.gather(listening, answering, return_exceptions=True)


def _request(
    scope: MutableMapping[str, Any],
    client: Client,
    target: gateway.Target,
    cookie_name: str,
) -> httpx.Request:
    """The request as the sandbox gets it. Raises NoAnswer for an odd address."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    path = path.partition(b"?")[0]
    if not path.startswith(b"/"):
        raise NoAnswer
    query: bytes = scope["query_string"]
    headers = for_sandbox(scope["headers"], target, cookie_name)
    names = {name for name, _ in scope["headers"]}
    is_chunked = b"transfer-encoding" in names
    if is_chunked:
        headers = [pair for pair in headers if pair[0] != "content-length"]
    base = httpx.URL(target.url)
    has_body = is_chunked or b"content-length" in names
    return httpx.Request(
        scope["method"],
        # Raw: what the browser asked for is not written anew.
        base.copy_with(raw_path=path + (b"?" + query if query else b"")),
        headers=headers,
        content=client.body() if has_body else None,
        extensions={"timeout": {"connect": CONNECT_S, "pool": CONNECT_S}},
    )


async def _answer(
    request: httpx.Request, send: Send, target: gateway.Target, cookie_name: str
) -> None:
    try:
        response = await pool().handle_async_request(request)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer from error
    try:
        body = await _body_of(response)
        upstream = urlsplit(target.url).hostname or ""
        names = {upstream, target.headers["host"].partition(":")[0]}
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": [
                *for_browser(response.headers.raw, names, cookie_name),
                (b"content-security-policy", FRAMED_BY),
            ],
        }
        await send(start)
        async for piece in body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await response.aclose()


async def _body_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. Raises NoAnswer when it is the backend that says, in
    place of the sandbox, that nobody listens."""
    kind = response.headers.get("content-type", "")
    length = response.headers.get("content-length", "")
    is_short = length.isdecimal() and int(length) <= SAYING_BYTES
    if response.status_code != 502 or "json" not in kind or not is_short:
        return response.aiter_raw()
    said = b"".join([piece async for piece in response.aiter_raw()])
    if b"port is not open" in said or b"was not found" in said:
        raise NoAnswer
    return httpx.ByteStream(said).__aiter__()


_pool: httpx.AsyncHTTPTransport | None = None
_loop: asyncio.AbstractEventLoop | None = None


def pool() -> httpx.AsyncHTTPTransport:
    """The connections of this process; a preview may stream for hours.

    A transport and not a client, which would add headers of its own, keep the
    sandboxes' cookies and follow the environment's proxies.
    """
    global _pool, _loop
    loop = asyncio.get_running_loop()
    if _pool is None or loop is not _loop:
        limits = httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=50
        )
        _pool, _loop = httpx.AsyncHTTPTransport(limits=limits, trust_env=False), loop
    return _pool


async def close() -> None:
    """Close the connections of the loop that ends."""
    global _pool
    if _pool is not None and _loop is asyncio.get_running_loop():
        await _pool.aclose()
        _pool = None
