"""A door for terminals beside the wire: bytes as they are, for a dashboard on this
machine.

The wire carries each piece of output as a protobuf message in an HTTP stream, which
costs several times what the terminal itself does. Here a client connects to the
abstract socket `kode-terminals-<port of the API>`. Both sides prove in JSON lines
that they have the API key, and neither shows it, since any process of the machine
could hold that name:

    client  {"nonce": a}
    door    {"proof": HMAC-SHA256(key, "server a"), "nonce": b}
    client  {"proof": HMAC-SHA256(key, "client b"), "sandbox", and either
            "pid"                           to follow a terminal, or
            "rows", "cols", "cwd", "envs"}  to begin one
    door    {"pid"} or {"error", "code"}; the code is of HTTP

Then frames go both ways: a kind of one byte, a length of four, the bytes.

    to the client    o output, e its exit code as text, k nothing: it is alive
    from the client  i input, r rows and columns as text, x end it
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import signal
import socket
import struct
from typing import Any

from protobuf import Oneof

from .contract import BoxGone
from .envd.commands import Command, Spec
from .envd.processes import MAX_SIDE, account_env, directory
from .envd.proto import process_pb as pb
from .envd.streams import Follower
from .registry import Registry
from .sandbox import NotFound, Sandbox

logger = logging.getLogger(__name__)
HEAD = struct.Struct(">cI")
LINE_BYTES = 256 << 10
INPUT_BYTES = 1 << 20
HELLO_S = 10.0
ALIVE_S = 50.0
BACKLOG = 1024
SHELL = ("/bin/bash", "-i", "-l")


def name_of(port: int) -> str:
    """The abstract name of the door of the runtime whose API has the port."""
    return f"\0kode-terminals-{port}"


class Refused(Exception):
    """What a client asked for cannot be; `code` is the HTTP status that says so."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Door:
    """Serves terminals of all sandboxes of a registry."""

    def __init__(self, registry: Registry, key: str, port: int) -> None:
        self._registry, self._key = registry, key.encode()
        self._name = name_of(port)
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        # Not by its name: libuv takes a name with NUL for none.
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind(self._name)
        self._server = await asyncio.start_unix_server(
            self._serve, sock=sock, limit=LINE_BYTES, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Leave the clients; their terminals live on."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it went away, or spoke nonsense
        finally:
            self._clients.discard(task)
            writer.close()

    async def _join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(HELLO_S):
                request = await self._request(reader, writer)
            command, follower = await self._command(request)
        except Refused as refused:
            writer.write(line(error=str(refused), code=refused.code))
            await writer.drain()
            return
        writer.write(line(pid=command.pid))
        tasks = [
            asyncio.create_task(send_output(command, follower, writer)),
            asyncio.create_task(take_input(command, reader)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            command.unfollow(follower)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> dict[str, Any]:
        """What a client asks for that has the key. Raises Refused."""
        nonce = secrets.token_hex(16)
        theirs = str(understood(await reader.readline()).get("nonce", ""))
        writer.write(line(proof=self._proof(f"server {theirs}"), nonce=nonce))
        request = understood(await reader.readline())
        given = str(request.get("proof", "")).encode()
        if not hmac.compare_digest(given, self._proof(f"client {nonce}").encode()):
            raise Refused(401, "the key is wrong")
        return request

    def _proof(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    async def _command(self, request: dict[str, Any]) -> tuple[Command, Follower]:
        """The terminal that is asked for. Raises Refused."""
        try:
            sandbox = self._registry.get(str(request.get("sandbox")))
        except (LookupError, NotFound) as problem:
            raise Refused(410, "the sandbox does not exist") from problem
        if not sandbox.running:
            raise Refused(410, "the sandbox is not running")
        if "pid" in request:
            return follow(sandbox, request["pid"])
        return await begin(sandbox, request)


def follow(sandbox: Sandbox, pid: Any) -> tuple[Command, Follower]:
    """A terminal that is there, or that ended a moment ago. Raises Refused."""
    commands = sandbox.services.commands
    found = commands.find(pid, ended=True) if type(pid) is int else None
    if found is None or not found.is_pty:
        raise Refused(404, "there is no such terminal")
    return found, found.follow()


async def begin(sandbox: Sandbox, request: dict[str, Any]) -> tuple[Command, Follower]:
    """A new login shell of the sandbox's user. Raises Refused."""
    services = sandbox.services
    envs = request.get("envs") or {}
    try:
        account = await services.agent.user("")
        spec = Spec(
            argv=SHELL,
            identity=account.identity,
            env=account_env(services, account) | {str(k): str(envs[k]) for k in envs},
            cwd=directory(str(request.get("cwd") or ""), account),
            stdin=True,
            size=sides(request.get("rows"), request.get("cols")),
            timeout_s=None,
            config=pb.ProcessConfig(cmd=SHELL[0], args=list(SHELL[1:])),
            tag=None,
        )
        services.agent.touch()
        return await services.commands.start(spec)
    except BoxGone as problem:
        raise Refused(410, "the sandbox is not running") from problem
    except (LookupError, OSError, TypeError, ValueError) as problem:
        raise Refused(400, f"the shell cannot begin: {problem}") from problem


async def send_output(
    command: Command, follower: Follower, writer: asyncio.StreamWriter
) -> None:
    """Send what the terminal prints, no faster than it is taken, and its end."""
    if command.end is not None:
        await follower.put(command.end)
    while True:
        news = await follower.get(ALIVE_S)
        match news.event if news else None:
            case Oneof(value=pb.ProcessEvent.DataEvent(output=Oneof(value=output))):
                writer.write(HEAD.pack(b"o", len(output)))
                writer.write(output)
            case Oneof(value=pb.ProcessEvent.EndEvent() as end):
                text = str(end.exit_code).encode()
                writer.write(HEAD.pack(b"e", len(text)) + text)
                await writer.drain()
                return
            case None if follower.closed:
                return
            case _:
                writer.write(HEAD.pack(b"k", 0))
        await writer.drain()


async def take_input(command: Command, reader: asyncio.StreamReader) -> None:
    """Type what the client sends, and follow its size."""
    while True:
        kind, length = HEAD.unpack(await reader.readexactly(HEAD.size))
        if length > INPUT_BYTES:
            return
        data = await reader.readexactly(length)
        with contextlib.suppress(OSError, TypeError, ValueError):
            if kind == b"i":
                await command.write(data)
            elif kind == b"r":
                command.resize(*sides(*map(int, data.split())))
            elif kind == b"x":
                await command.signal(signal.SIGKILL)


def sides(rows: Any, cols: Any) -> tuple[int, int]:
    """A terminal's size. Raises ValueError for what is none."""
    if not all(type(one) is int and 0 < one <= MAX_SIDE for one in (rows, cols)):
        raise ValueError("a size is two numbers above 0")
    return rows, cols


def understood(text: bytes) -> dict[str, Any]:
    """A line of JSON that is an object. Raises Refused."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise Refused(400, "not understood") from problem
    if not isinstance(found, dict):
        raise Refused(400, "not understood")
    return found


def line(**what: object) -> bytes:
    """A line of JSON."""
    return json.dumps(what).encode() + b"\n"
