"""The RPC service `process.Process`: commands and terminals."""

import asyncio
import errno
import os
import posixpath
import signal
from collections.abc import AsyncIterator
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from protobuf import Oneof

from sandboxes.local.contract import BoxGone

from .agent import Account, AgentLost
from .commands import Command, Spec, event
from .context import (
    Services,
    client_left,
    expiring,
    keepalive_s,
    timeout_s,
    unary_limit,
    username,
)
from .errors import connect_error
from .proto import process_pb as pb
from .proto.process_connect import Process
from .streams import Follower

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SIGNALS = {pb.Signal.SIGKILL: signal.SIGKILL, pb.Signal.SIGTERM: signal.SIGTERM}
MAX_SIDE = 10_000  # rows or columns of a terminal; the kernel takes 65,535

Context = RequestContext[Any, Any]


class ProcessService(Process):
    """Runs commands as envd does; see `Commands` for how they end."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: pb.ListRequest, ctx: Context) -> pb.ListResponse:
        return pb.ListResponse(
            processes=[info(c) for c in self._services.commands.all()]
        )

    async def start(
        self, request: pb.StartRequest, ctx: Context
    ) -> AsyncIterator[pb.StartResponse]:
        spec = await self._spec(request, ctx)
        self._services.agent.touch()
        try:
            command, follower = await self._services.commands.start(spec)
        except (OSError, ValueError, BoxGone) as problem:
            raise await self._refusal(spec, problem) from problem
        self._services.agent.warm()
        async for news in self._follow(command, follower, ctx):
            yield pb.StartResponse(event=news)

    async def connect(
        self, request: pb.ConnectRequest, ctx: Context
    ) -> AsyncIterator[pb.ConnectResponse]:
        command = self._find(request.process, ended=True)
        follower = command.follow()
        if command.end is not None:
            await follower.put(command.end)
        async for news in self._follow(command, follower, ctx):
            yield pb.ConnectResponse(event=news)

    async def update(
        self, request: pb.UpdateRequest, ctx: Context
    ) -> pb.UpdateResponse:
        command = self._find(request.process)
        if request.pty is not None and request.pty.size is not None:
            try:
                command.resize(*size(request.pty.size))
            except OSError as problem:
                text = f"error resizing tty: {problem}"
                raise ConnectError(Code.INTERNAL, text) from problem
        return pb.UpdateResponse()

    async def send_input(
        self, request: pb.SendInputRequest, ctx: Context
    ) -> pb.SendInputResponse:
        with expiring("writing input"):
            async with unary_limit(ctx):
                await write(self._find(request.process), request.input)
        return pb.SendInputResponse()

    async def stream_input(
        self, request: AsyncIterator[pb.StreamInputRequest], ctx: Context
    ) -> pb.StreamInputResponse:
        command: Command | None = None
        with expiring("the input stream"):
            async with asyncio.timeout(timeout_s(ctx)):
                async for message in request:
                    match message.event:
                        case Oneof(value=pb.StreamInputRequest.StartEvent() as start):
                            command = self._find(start.process)
                        case Oneof(value=pb.StreamInputRequest.DataEvent() as data):
                            if command is None:
                                text = "the first message must name the process"
                                raise ConnectError(Code.INVALID_ARGUMENT, text)
                            await write(command, data.input)
        return pb.StreamInputResponse()

    async def send_signal(
        self, request: pb.SendSignalRequest, ctx: Context
    ) -> pb.SendSignalResponse:
        command = self._find(request.process)
        number = SIGNALS.get(request.signal)
        if number is None:
            text = f"invalid signal: {request.signal}"
            raise ConnectError(Code.UNIMPLEMENTED, text)
        try:
            await command.signal(number)
        except ProcessLookupError as problem:
            raise not_found(command.pid) from problem
        except BoxGone as problem:
            raise connect_error(problem, "signal") from problem
        return pb.SendSignalResponse()

    async def close_stdin(
        self, request: pb.CloseStdinRequest, ctx: Context
    ) -> pb.CloseStdinResponse:
        command = self._find(request.process)
        if command.is_pty:
            text = "cannot close stdin for PTY process — send Ctrl+D (0x04) instead"
            raise ConnectError(Code.UNKNOWN, f"error closing stdin: {text}")
        command.close_stdin()
        return pb.CloseStdinResponse()

    async def _spec(self, request: pb.StartRequest, ctx: Context) -> Spec:
        config = request.process
        if config is None or not config.cmd:
            raise ConnectError(Code.INVALID_ARGUMENT, "no command given")
        name = username(ctx)
        try:
            account = await self._services.agent.user(name)
            cwd = directory(config.cwd, account)
        except (LookupError, ValueError, OSError, AgentLost, BoxGone) as problem:
            raise connect_error(problem, "starting process") from problem
        terminal = request.pty
        return Spec(
            argv=(config.cmd, *config.args),
            identity=account.identity,
            env=account_env(self._services, account) | dict(config.envs),
            cwd=cwd,
            stdin=request.stdin if request.has_field("stdin") else True,
            size=None if terminal is None else size(terminal.size or pb.PTY.Size()),
            timeout_s=timeout_s(ctx),
            config=config,
            tag=request.tag if request.has_field("tag") else None,
        )

    async def _refusal(self, spec: Spec, problem: Exception) -> ConnectError:
        """Why a command could not start: a missing directory, or itself."""
        if isinstance(problem, BoxGone):
            return connect_error(problem, "start")
        try:
            await self._services.agent.stat("root", spec.cwd)
        except OSError as missing:
            if missing.errno in (errno.ENOENT, errno.ENOTDIR):
                text = f"cwd '{spec.cwd}' does not exist"
                return ConnectError(Code.INVALID_ARGUMENT, text)
        except (AgentLost, BoxGone) as lost:
            return connect_error(lost, "start")
        reason = getattr(problem, "strerror", None) or problem
        text = f"error starting process '{spec.argv[0]}': {reason}"
        return ConnectError(Code.INVALID_ARGUMENT, text)

    def _find(
        self, selector: pb.ProcessSelector | None, *, ended: bool = False
    ) -> Command:
        match selector.selector if selector else None:
            case Oneof(value=key):
                found = self._services.commands.find(key, ended=ended)
                if found is None:
                    raise not_found(key)
                return found
        raise ConnectError(Code.UNIMPLEMENTED, "invalid selector")

    async def _follow(
        self, command: Command, follower: Follower, ctx: Context
    ) -> AsyncIterator[pb.ProcessEvent]:
        client_left.get().then(follower.close)
        limit = timeout_s(ctx)
        timer = limit and asyncio.get_running_loop().call_later(limit, follower.close)
        started = pb.ProcessEvent.StartEvent(pid=command.pid)
        try:
            yield event("start", started)
            while True:
                news = await follower.get(keepalive_s(ctx))
                if news is None:
                    if follower.closed:
                        raise self._broken(command)
                    news = KEEPALIVE
                yield news
                if news is command.end:
                    return
        finally:
            if timer:
                timer.cancel()
            command.unfollow(follower)

    def _broken(self, command: Command) -> ConnectError:
        if command.lost:
            text = (
                f"the connection to sandbox {self._services.sandbox_id} "
                "ended before the stream completed"
            )
            return ConnectError(Code.UNAVAILABLE, text)
        return ConnectError(Code.DEADLINE_EXCEEDED, "the stream's time is over")


def account_env(services: Services, account: Account) -> dict[str, str]:
    """The environment of what an account runs in the sandbox."""
    own = {
        "PATH": PATH,
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "E2B_SANDBOX": "true",
        "E2B_SANDBOX_ID": services.sandbox_id,
    }
    return own | dict(services.env)


KEEPALIVE = event("keepalive", pb.ProcessEvent.KeepAlive())


def info(command: Command) -> pb.ProcessInfo:
    found = pb.ProcessInfo(config=command.config, pid=command.pid)
    if command.tag is not None:
        found.tag = command.tag
    return found


def not_found(key: int | str) -> ConnectError:
    kind = "pid" if isinstance(key, int) else "tag"
    return ConnectError(Code.NOT_FOUND, f"process with {kind} {key} not found")


def size(wanted: pb.PTY.Size) -> tuple[int, int]:
    """(rows, columns), within what a terminal can have."""
    return min(wanted.rows, MAX_SIDE), min(wanted.cols, MAX_SIDE)


def directory(path: str, account: Account) -> str:
    """The working directory: absolute, from the home, or the home itself."""
    if path.startswith("~"):
        if path[1:2] not in ("", "/"):
            raise ValueError("cannot expand user-specific home dir")
        path = account.home + path[1:]
    return posixpath.normpath(posixpath.join(account.home, path))


async def write(command: Command, given: pb.ProcessInput | None) -> None:
    match given.input if given else None:
        case Oneof(field="pty", value=data):
            if not command.is_pty:
                text = "error writing to tty: tty not assigned to process"
                raise ConnectError(Code.INTERNAL, text)
        case Oneof(field="stdin", value=data):
            if command.is_pty:
                text = "error writing to stdin: tty assigned to process"
                raise ConnectError(Code.INTERNAL, text)
        case _:
            raise ConnectError(Code.UNIMPLEMENTED, "invalid input type")
    try:
        await command.write(data)
    except OSError as problem:
        text = problem.strerror or os.strerror(problem.errno) if problem.errno else ""
        text = f"error writing to stdin: {text or problem}"
        raise ConnectError(Code.INTERNAL, text) from problem
