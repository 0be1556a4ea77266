"""Commands and terminals that run in one sandbox, and who follows their output."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import struct
import termios
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protobuf import Oneof

from sandboxes.local.contract import Box, BoxGone, Identity

from .proto.process_pb import ProcessConfig, ProcessEvent
from .streams import GRACE_S, UNHEARD_S, Follower, Output, writable

logger = logging.getLogger(__name__)

PIPE_BYTES = 32 << 10  # of one output event, as envd has it
PTY_BYTES = 64 << 10
KEEP_EXIT_S = 30.0  # for a client that connects late


@dataclass(frozen=True)
class Spec:
    """What to run. `size` is (rows, columns) of a terminal, None for pipes."""

    argv: Sequence[str]
    identity: Identity
    env: Mapping[str, str]
    cwd: str
    stdin: bool
    size: tuple[int, int] | None
    timeout_s: float | None
    config: ProcessConfig
    tag: str | None


class Command:
    """A started command: feeds its followers, takes input and signals, ends once."""

    def __init__(self, box: Box, spec: Spec) -> None:
        self._box, self._spec = box, spec
        self.config, self.tag = spec.config, spec.tag
        self.pid = 0
        self.end: ProcessEvent | None = None
        self.lost = False
        self.is_pty = spec.size is not None
        self._outputs: list[Output] = []
        self._stdin: int | None = None
        self._writing = asyncio.Lock()
        self._signalled = False
        self._followers: list[Follower] = []

    async def start(self) -> None:
        """Spawn it. Raises OSError when it cannot run and BoxGone."""
        if self._spec.size is not None:
            await self._start_pty(*self._spec.size)
        else:
            await self._start_pipes()

    async def _start_pty(self, rows: int, cols: int) -> None:
        self.pid, master = await self._box.spawn_pty(
            self._spec.argv,
            identity=self._spec.identity,
            env=self._spec.env,
            cwd=self._spec.cwd,
            rows=rows,
            cols=cols,
        )
        self._outputs = [Output(master, "pty", PTY_BYTES)]
        self._stdin = master

    async def _start_pipes(self) -> None:
        out, theirs_out = os.pipe()
        err, theirs_err = os.pipe()
        if self._spec.stdin:
            theirs_in, self._stdin = os.pipe()
            os.set_blocking(self._stdin, False)
        else:
            theirs_in = os.open(os.devnull, os.O_RDONLY)
        self._outputs = [
            Output(out, "stdout", PIPE_BYTES),
            Output(err, "stderr", PIPE_BYTES),
        ]
        try:
            self.pid = await self._box.spawn(
                self._spec.argv,
                identity=self._spec.identity,
                env=self._spec.env,
                cwd=self._spec.cwd,
                fds=(theirs_in, theirs_out, theirs_err),
            )
        except BaseException:
            self._release(discard=False)
            raise
        finally:
            for fd in (theirs_in, theirs_out, theirs_err):
                os.close(fd)

    def follow(self) -> Follower:
        follower = Follower()
        self._followers.append(follower)
        return follower

    def unfollow(self, follower: Follower) -> None:
        follower.close()
        if follower in self._followers:
            self._followers.remove(follower)

    async def run(self) -> None:
        """Pump the output until the command ends; then tell the followers."""
        pumps = [asyncio.create_task(self._pump(output)) for output in self._outputs]
        waiting = asyncio.create_task(self._box.wait(self.pid))
        try:
            await asyncio.wait((waiting,), timeout=self._spec.timeout_s)
            if not waiting.done():
                await self._overdue()
            code = await waiting
            for output in self._outputs:
                output.leave()
            if self._signalled:
                await asyncio.wait(pumps, timeout=GRACE_S)
            else:
                await asyncio.gather(*pumps)
            self.end = end_event(code)
        except BoxGone:
            self.lose()
        finally:
            for task in (waiting, *pumps):
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._release(discard=not self.lost and not self.is_pty)
        for follower in tuple(self._followers):
            if self.end is not None:
                await follower.put(self.end)

    def lose(self) -> None:
        """The sandbox is gone: nothing more will come."""
        self.lost = True
        for follower in self._followers:
            follower.close()

    async def write(self, data: bytes) -> None:
        """Write to stdin or the terminal, in order. Raises OSError when closed."""
        async with self._writing:
            view = memoryview(data)
            while view:
                if self._stdin is None:
                    raise BrokenPipeError("stdin not enabled or closed")
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await writable(self._stdin)

    def close_stdin(self) -> None:
        if self._stdin is not None and not self.is_pty:
            asyncio.get_running_loop().remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = None

    def resize(self, rows: int, cols: int) -> None:
        """Raises OSError when the command has no terminal."""
        if not self.is_pty or self._stdin is None:
            raise OSError("tty not assigned to process")
        size = struct.pack("HHHH", rows, cols, 0, 0)
        fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, size)

    async def signal(self, number: int) -> None:
        """Signal the leader alone, as envd does; its children live on."""
        self._signalled = True
        await self._box.signal(self.pid, number)

    async def _overdue(self) -> None:
        self._signalled = True
        with contextlib.suppress(ProcessLookupError):
            await self._box.signal(self.pid, signal.SIGKILL, tree=True)

    async def _pump(self, output: Output) -> None:
        while data := await output.read():
            if not self._followers:
                await asyncio.sleep(UNHEARD_S)
                continue
            news = data_event(output.field, data)
            for follower in tuple(self._followers):
                await follower.put(news)

    def _release(self, *, discard: bool) -> None:
        if not self.is_pty:
            self.close_stdin()
        self._stdin = None
        for output in self._outputs:
            output.release(discard=discard)
        self._outputs = []


class Commands:
    """The table of a sandbox's commands, with those that ended a moment ago."""

    def __init__(self, box: Box, log: Callable[[str], None]) -> None:
        self._box, self._log = box, log
        self._running: dict[int, Command] = {}
        self._ended: dict[int, tuple[float, Command]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, spec: Spec) -> tuple[Command, Follower]:
        command = Command(self._box, spec)
        await command.start()
        follower = command.follow()
        self._running[command.pid] = command
        self._ended.pop(command.pid, None)
        self._log(f"Process with pid {command.pid} started")
        self._spawn(self._run(command))
        return command, follower

    def all(self) -> list[Command]:
        return list(self._running.values())

    def find(self, key: int | str, *, ended: bool = False) -> Command | None:
        """By pid or tag; with `ended` also one that ended up to 30 s ago."""
        found = [*self._running.values()]
        if ended:
            self._prune()
            found += [command for _, command in reversed(self._ended.values())]
        for command in found:
            if key == (command.pid if isinstance(key, int) else command.tag):
                return command
        return None

    def close(self) -> None:
        """Tell the followers that it is over and stop following."""
        for command in self._running.values():
            command.lose()
        for task in self._tasks:
            task.cancel()

    async def _run(self, command: Command) -> None:
        try:
            await command.run()
        finally:
            if self._running.get(command.pid) is command:
                del self._running[command.pid]
            self._prune()
            self._ended.pop(command.pid, None)
            self._ended[command.pid] = (time.monotonic(), command)
            self._log(f"Process with pid {command.pid} ended")

    def _prune(self) -> None:
        """Forget what ended too long ago; the oldest come first."""
        oldest = time.monotonic() - KEEP_EXIT_S
        while self._ended and next(iter(self._ended.values()))[0] < oldest:
            del self._ended[next(iter(self._ended))]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def choice(field: str, value: Any) -> Any:
    """One of a message's alternatives; the stubs type each field by itself."""
    return Oneof(field, value)


def event(field: str, value: Any) -> ProcessEvent:
    return ProcessEvent(event=choice(field, value))


def data_event(field: str, data: bytes) -> ProcessEvent:
    return event("data", ProcessEvent.DataEvent(output=choice(field, data)))


def end_event(code: int) -> ProcessEvent:
    """How a command ended, in Go's words; a negative code is a signal."""
    if code < 0:
        text = f"signal: {signal_name(-code)}"
        end = ProcessEvent.EndEvent(exit_code=-1, status=text, error=text)
    else:
        text = f"exit status {code}"
        end = ProcessEvent.EndEvent(exit_code=code, exited=True, status=text)
        if code:
            end.error = text
    return event("end", end)


def signal_name(number: int) -> str:
    return (signal.strsignal(number) or str(number)).lower()
