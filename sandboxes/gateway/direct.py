"""Terminals of the local runtime without the wire: its door on this machine.

The same shells as by the SDK, at a fraction of the processor time and memory of the
HTTP streams. Where there is no such door, `commands` takes the SDK's way.
Protocol: the docstring of `sandboxes.local.door`.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import Backend

HEAD = struct.Struct(">cI")
HELLO_S = 5.0
LIMIT_BYTES = 64 << 10
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# The runtime says that it is alive each 50 s.
SILENT_S = 120.0

type OnData = Callable[[bytes], Awaitable[None]]


class NoDoor(Exception):
    """This backend has none, or it is another's."""


class DirectPty:
    """A terminal by the runtime's door; as `Pty`, which is the SDK's."""

    def __init__(
        self,
        pid: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_data: OnData,
    ) -> None:
        self.pid = pid
        self._reader, self._writer, self._on_data = reader, writer, on_data
        self._heard = True
        self._timer: asyncio.TimerHandle | None = None
        self._reading = asyncio.create_task(self._read())
        # Also when nobody waits for it.
        self._reading.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )

    async def send(self, data: bytes) -> None:
        """Type. Raises Unreachable when the connection is lost."""
        await self._say(b"i", data)

    async def resize(self, rows: int, cols: int) -> None:
        """Change the size in characters."""
        await self._say(b"r", f"{rows} {cols}".encode())

    async def kill(self) -> None:
        """End the shell."""
        await self._say(b"x", b"")

    async def wait(self) -> int:
        """The shell's exit code, when it ends. Raises Unreachable when the
        connection breaks. Whoever stops waiting follows no more."""
        try:
            return await asyncio.shield(self._reading)
        except asyncio.CancelledError:
            self._reading.cancel()
            raise

    async def _read(self) -> int:
        """Hand on what it prints to its end; while `on_data` waits, it waits too."""
        self._listen()
        try:
            while True:
                kind, length = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                data = await self._reader.readexactly(length)
                self._heard = True
                if kind == b"o":
                    await self._on_data(data)
                elif kind == b"e":
                    return int(data)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise errors.Unreachable("The sandbox does not answer.") from error
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._writer.close()

    def _listen(self) -> None:
        """Give the connection up once nothing was heard for SILENT_S.

        One timer, and not one for each piece: a flood has thousands a second.
        """
        if not self._heard:
            self._writer.transport.abort()
        if not self._writer.is_closing():
            self._heard = False
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SILENT_S, self._listen)

    async def close(self) -> None:
        """Stop following; the shell lives on."""
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _say(self, kind: bytes, data: bytes) -> None:
        if self._writer.is_closing():
            raise errors.Unreachable("The sandbox does not answer.")
        self._writer.write(HEAD.pack(kind, len(data)) + data)
        try:
            await self._writer.drain()
        except OSError as error:
            raise errors.Unreachable("The sandbox does not answer.") from error


async def open_direct(
    backend: Backend, sandbox: Sandbox, on_data: OnData, **wanted: Any
) -> DirectPty:
    """Begin or follow a terminal. Raises NoDoor, NotFound, Gone, Invalid."""
    address = urlsplit(backend.options.get("api_url", ""))
    if not backend.is_local or address.hostname not in LOOPBACK or not address.port:
        raise NoDoor
    try:
        async with asyncio.timeout(HELLO_S):
            # Not by its name: libuv takes a name with NUL for none.
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                sock.connect(f"\0kode-terminals-{address.port}")
            except BaseException:
                sock.close()
                raise
            reader, writer = await asyncio.open_unix_connection(
                sock=sock, limit=LIMIT_BYTES
            )
            proof = await _greet(backend.options["api_key"], reader, writer)
            asked = {"proof": proof, "sandbox": sandbox.sandbox_id}
            writer.write(json.dumps(asked | wanted).encode() + b"\n")
            said = json.loads(await reader.readline())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoDoor from error
    if "pid" in said:
        return DirectPty(said["pid"], reader, writer, on_data)
    writer.close()
    raise _KINDS.get(said.get("code"), errors.SandboxError)(str(said.get("error")))


_KINDS: dict[int, type[errors.SandboxError]] = {
    400: errors.Invalid,
    401: errors.Refused,
    404: errors.NotFound,
    410: errors.Gone,
}


async def _greet(
    key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    """Our proof of the key, once the other side gave its own: any process of this
    machine may take a name, and none must learn a key or a variable by that."""
    nonce = secrets.token_hex(16)
    writer.write(json.dumps({"nonce": nonce}).encode() + b"\n")
    said = json.loads(await reader.readline())
    if not hmac.compare_digest(_proof(key, f"server {nonce}"), str(said["proof"])):
        raise NoDoor
    return _proof(key, f"client {said['nonce']}")


def _proof(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def _heed(ended: "asyncio.Task[int]") -> None:
    """An end that nobody waited for is no news."""
    if not ended.cancelled():
        ended.exception()
