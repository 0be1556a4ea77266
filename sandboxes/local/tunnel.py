"""Passes websockets on to a port of a sandbox: bytes, both ways, untouched.

uvicorn hands a connection over when it asks for an upgrade to a websocket. What
comes first is the request's head; after it, everything belongs to the two ends.
"""

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any, cast

from starlette.datastructures import Headers
from uvicorn.config import Config
from uvicorn.server import ServerState

from .addresses import (
    ENVD_PORT,
    OWN_HEADERS,
    Address,
    Refused,
    address_of,
    sandbox_at,
)
from .proxy import TLS_NAME, TLS_S, dial, no_tls, tls_of
from .registry import Registry

logger = logging.getLogger(__name__)

REGISTRY = "registry"  # its name in the application's state
NOWHERE = Address("", 0)


class Far(asyncio.Protocol):
    """The connection to the server in the sandbox."""

    def __init__(self, near: "Tunnel") -> None:
        self._near = near
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not one

    def data_received(self, data: bytes) -> None:
        self._near.transport.write(data)

    def pause_writing(self) -> None:
        self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        self._near.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._near.transport.close()


class Tunnel(asyncio.Protocol):
    """The client's connection, from the upgrade request on."""

    transport: asyncio.Transport

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        self._registry: Registry = app_state[REGISTRY]
        self._connections: set[Any] = server_state.connections
        self._far: Far | None = None
        self._opening: asyncio.Task[None] | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not one
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._far is not None and self._far.transport is not None:
            self._far.transport.write(data)
        elif self._opening is None:
            self._opening = asyncio.create_task(self._open(data))
            self._opening.add_done_callback(log_failure)
        else:
            self._early += data
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        if self._far is not None and self._far.transport is not None:
            self._far.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._far is not None and self._far.transport is not None:
            self._far.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        if self._far is not None and self._far.transport is not None:
            self._far.transport.close()

    def shutdown(self) -> None:
        """The runtime ends: so does the tunnel."""
        self.transport.close()

    async def _open(self, request: bytes) -> None:
        line, *rows = request[:-4].split(b"\r\n")
        split = (row.partition(b": ") for row in rows)
        pairs = [(name.lower(), value) for name, _, value in split]
        try:
            far = await self._dial(Headers(raw=pairs))
        except Refused as refused:
            self._refuse(refused.status, refused.body)
            return
        assert far.transport is not None
        kept = [
            b"%b: %b" % pair for pair in pairs if pair[0].decode() not in OWN_HEADERS
        ]
        far.transport.write(b"\r\n".join([line, *kept]) + b"\r\n\r\n" + self._early)
        self._far = far
        self.transport.resume_reading()

    async def _dial(self, headers: Headers) -> Far:
        address = address_of(headers)
        if address is None or address.port == ENVD_PORT:
            raise Refused(404, "no websocket is served here", address or NOWHERE)
        sandbox = await sandbox_at(self._registry, address, headers)
        sock = await dial(sandbox, address)
        loop, tls = asyncio.get_running_loop(), tls_of(sandbox, address)
        try:
            _, far = await loop.create_connection(
                lambda: Far(self),
                sock=sock,
                ssl=tls,
                server_hostname=TLS_NAME if tls else None,
                ssl_handshake_timeout=TLS_S if tls else None,
            )
        except OSError as problem:
            raise no_tls(address) from problem
        return far

    def _refuse(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(text)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + text)
        self.transport.close()


def log_failure(opening: "asyncio.Task[None]") -> None:
    if not opening.cancelled() and (problem := opening.exception()):
        logger.error("a websocket could not be opened: %r", problem)
