"""Websockets of a preview, passed on message by message."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Origin, Subprotocol

from kode_web.preview_headers import for_sandbox
from sandboxes import gateway

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_MESSAGE_BYTES = 16 << 20
# The client library writes these itself.
HANDSHAKE = ("sec-websocket-", "origin", "host")


async def relay_socket(
    scope: Scope,
    receive: Receive,
    send: Send,
    target: gateway.Target,
    cookie_name: str,
) -> None:
    """Join the browser's socket and one of the sandbox until either closes."""
    await receive()
    try:
        upstream = await _connect(scope, target, cookie_name)
    except (OSError, WebSocketException, TimeoutError):
        await send({"type": "websocket.close", "code": 1011})
        return
    async with upstream:
        accept = {"type": "websocket.accept", "subprotocol": upstream.subprotocol}
        await send(accept)
        tasks = {
            asyncio.ensure_future(_up(receive, upstream)),
            asyncio.ensure_future(_down(upstream, send)),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(
    scope: Scope, target: gateway.Target, cookie_name: str
) -> ClientConnection:
    host, parts = target.headers["host"], urlsplit(target.url)
    secure = parts.scheme == "https"
    query = scope["query_string"].decode("latin-1")
    raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    given = for_sandbox(scope["headers"], target, cookie_name)
    headers = [pair for pair in given if not pair[0].startswith(HANDSHAKE)]
    origin = dict(given).get("origin")
    return await connect(
        f"{'wss' if secure else 'ws'}://{host}{raw}{'?' + query if query else ''}",
        # The address to dial; the host above goes into the handshake.
        host=parts.hostname,
        port=parts.port or (443 if secure else 80),
        origin=Origin(origin) if origin else None,
        additional_headers=headers,
        subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", ())],
        compression=None,
        max_size=MAX_MESSAGE_BYTES,
        ping_interval=None,
        proxy=None,
    )


async def _up(receive: Receive, upstream: ClientConnection) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        await upstream.send(message["text"] if data is None else data)


async def _down(upstream: ClientConnection, send: Send) -> None:
    try:
        async for data in upstream:
            kind = "text" if isinstance(data, str) else "bytes"
            await send({"type": "websocket.send", kind: data})
    except ConnectionClosed:
        pass
    code = upstream.close_code or 1011
    await send({"type": "websocket.close", "code": code if code < 5000 else 1011})
