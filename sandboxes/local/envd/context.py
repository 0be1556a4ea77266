"""What the services of one sandbox share, and the facts of one request."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext

from sandboxes.local.contract import Box

from .agent import Agent
from .commands import Commands

MAX_KEEPALIVE_S = 90.0
UNARY_S = 60.0  # for a request that names no limit of its own

client_left: ContextVar["Departure"] = ContextVar("client_left")


class Departure:
    """Tells once that the client of a request has gone."""

    def __init__(self) -> None:
        self._gone = False
        self._callbacks: list[Callable[[], None]] = []

    def then(self, callback: Callable[[], None]) -> None:
        """Call back when the client goes, at once if it has."""
        if self._gone:
            callback()
        self._callbacks.append(callback)

    def announce(self) -> None:
        if not self._gone:
            self._gone = True
            for callback in self._callbacks:
                callback()


@dataclass
class Services:
    """One sandbox as its envd sees it. `token` None: no token is asked for."""

    sandbox_id: str
    box: Box
    token: str | None
    env: Mapping[str, str]
    log: Callable[[str], None]
    agent: Agent = field(init=False)
    commands: Commands = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent(self.box)
        self.commands = Commands(self.box, self.log)

    def close(self) -> None:
        self.commands.close()
        self.agent.close()


def username(context: RequestContext[Any, Any]) -> str:
    """The user named by Basic authentication, empty for the default."""
    header = context.request_headers.get("authorization", "")
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError) as problem:
        text = "unreadable Basic authentication"
        raise ConnectError(Code.UNAUTHENTICATED, text) from problem


def keepalive_s(context: RequestContext[Any, Any]) -> float:
    header = context.request_headers.get("keepalive-ping-interval", "")
    if header.isascii() and header.isdigit() and int(header) > 0:
        return min(float(header), MAX_KEEPALIVE_S)
    return MAX_KEEPALIVE_S


def timeout_s(context: RequestContext[Any, Any]) -> float | None:
    """The client's limit for the whole call; None or 0 on the wire: no limit."""
    return context.timeout_ms / 1000 if context.timeout_ms else None


@contextlib.contextmanager
def expiring(what: str) -> Iterator[None]:
    """Turn a timeout inside into the RPC's deadline error."""
    try:
        yield
    except TimeoutError as problem:
        raise ConnectError(Code.DEADLINE_EXCEEDED, f"{what} took too long") from problem


def unary_limit(context: RequestContext[Any, Any]) -> asyncio.Timeout:
    return asyncio.timeout(min(timeout_s(context) or UNARY_S, UNARY_S))
