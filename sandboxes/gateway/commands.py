"""Commands and terminals inside a machine."""

import asyncio
import base64
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from channels.db import database_sync_to_async

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import calling
from .boxes import box, open_box, running_at
from .direct import DirectPty, NoDoor, OnData, open_direct
from .prompt import promptly

if TYPE_CHECKING:
    import e2b

type OnText = Callable[[str], None] | Callable[[str], Awaitable[None]]
# What `run` keeps of each output stream; `stream` has no limit.
OUTPUT_BYTES = 4 << 20
END_S = 10.0
USER = "user"


@dataclass(frozen=True)
class Result:
    """A command that ran to its end."""

    stdout: str
    stderr: str
    exit_code: int


def run(
    sandbox: Sandbox,
    cmd: str,
    *,
    user: str = USER,
    cwd: str | None = None,
    envs: dict[str, str] | None = None,
    timeout_s: float = 60,
) -> Result:
    """Run a command to its end. A non-zero exit code is a result.

    Raises TimedOut, and TooLarge when it prints more than OUTPUT_BYTES.
    """
    kept: tuple[list[str], list[str]] = [], []
    size = 0
    with _started(sandbox, cmd, user, cwd, envs, timeout_s) as handle:
        for stdout, stderr, _ in handle:
            kept[0].append(stdout or "")
            kept[1].append(stderr or "")
            size += len(stdout or "") + len(stderr or "")
            if size > OUTPUT_BYTES:
                raise errors.TooLarge("The command prints more than fits here.")
        exit_code = _exit_code(handle)
    return Result("".join(kept[0]), "".join(kept[1]), exit_code)


def stream(
    sandbox: Sandbox, cmd: str, *, user: str = USER, timeout_s: float = 600
) -> Generator[bytes]:
    """A command's standard output as it comes, carried as base64 lines.

    The wire decodes output as text, so bytes travel encoded. Raises SandboxError
    at the end when the command failed.
    """
    encoded = f"set -o pipefail; {{ {cmd}; }} | base64 -w 76000"
    rest = ""
    with _started(sandbox, encoded, user, "/", None, timeout_s) as handle:
        for stdout, _, _ in handle:
            *lines, rest = (rest + (stdout or "")).split("\n")
            for line in lines:
                yield _decoded(line)
        yield _decoded(rest)
        if _exit_code(handle):
            raise errors.SandboxError("The command failed before it was done.")


@contextlib.contextmanager
def _started(
    sandbox: Sandbox,
    cmd: str,
    user: str,
    cwd: str | None,
    envs: dict[str, str] | None,
    timeout_s: float,
) -> "Iterator[e2b.CommandHandle[None]]":
    """A command that runs; whoever leaves before its end kills it."""
    with calling(sandbox.backend, in_command=True):
        commands = box(sandbox).commands

        def end(handle: "e2b.CommandHandle[None]") -> None:
            with contextlib.suppress(Exception):
                handle.disconnect()
                commands.run(_kill_all(handle.pid), user="root", timeout=5)

        handle = promptly(
            lambda: commands.run(
                cmd,
                background=True,
                user=user,
                cwd=cwd or sandbox.workdir or None,
                envs=envs,
                timeout=timeout_s,
                retain_output=False,
            ),
            undo=end,
        )
        try:
            yield handle
        except BaseException as error:
            # Of a machine that hangs, its page has waited enough.
            patience_s = 0 if isinstance(error, errors.Unreachable) else END_S
            with contextlib.suppress(errors.Unreachable):
                promptly(lambda: end(handle), patience_s=patience_s)
            raise


def _exit_code(handle: "e2b.CommandHandle[None]") -> int:
    """Of a command whose output was read to its end."""
    import e2b

    try:
        return handle.wait().exit_code
    except e2b.CommandExitException as ended:
        return ended.exit_code


def _decoded(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except ValueError as error:
        raise errors.SandboxError("The sandbox sent what it should not.") from error


async def run_streamed(
    sandbox: Sandbox,
    cmd: str,
    *,
    cwd: str | None,
    envs: dict[str, str] | None,
    timeout_s: float,
    on_stdout: OnText,
    on_stderr: OnText,
    on_pid: Callable[[int], Awaitable[None] | None] | None = None,
    user: str = USER,
) -> int:
    """Run a command and hand its output on as it comes; its exit code.

    While what `on_stdout` or `on_stderr` returns is awaited, the command waits. A
    `timeout_s` of 0 is none. Raises TimedOut. When cancelled the command runs on;
    `kill_process` ends it.
    """
    with calling(sandbox.backend, in_command=True):
        connected = await open_box(sandbox)
        handle = await connected.commands.run(
            cmd,
            background=True,
            user=user,
            cwd=cwd,
            envs=envs,
            timeout=timeout_s,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            retain_output=False,
        )
        if on_pid and inspect.isawaitable(told := on_pid(handle.pid)):
            await told
        return await _end_of(handle)


async def rejoin_streamed(
    sandbox: Sandbox, pid: int, *, on_stdout: OnText, on_stderr: OnText
) -> int:
    """Follow a command that runs already, from now on; its exit code.

    Raises NotFound when it has ended too long ago.
    """
    with calling(sandbox.backend, in_command=True):
        connected = await open_box(sandbox)
        handle = await connected.commands.connect(
            pid,
            timeout=0,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
            retain_output=False,
        )
        return await _end_of(handle)


async def _end_of(handle: "e2b.AsyncCommandHandle[None]") -> int:
    import e2b

    try:
        return (await handle.wait()).exit_code
    except e2b.CommandExitException as ended:
        return ended.exit_code
    finally:
        with contextlib.suppress(Exception):
            await handle.disconnect()


async def kill_process(sandbox: Sandbox, pid: int) -> bool:
    """Kill a process and all that it started; False when there is none.

    The wire's kill reaches the leader only, so its session goes first.
    """
    with calling(sandbox.backend):
        connected = await open_box(sandbox)
        with contextlib.suppress(Exception):
            await connected.commands.run(_kill_all(pid), user="root", timeout=5)
        killed = await connected.commands.kill(pid)
    return killed


def _kill_all(pid: int) -> str:
    """A command that kills a process and what it started, as far as its session."""
    return f"pkill -KILL -s {pid}; kill -KILL {pid} 2>/dev/null; true"


class Pty:
    """A terminal of a machine: its pid, its input, its size, its end."""

    def __init__(
        self,
        sandbox: Sandbox,
        connected: "e2b.AsyncSandbox",
        handle: "e2b.AsyncCommandHandle",
    ) -> None:
        self._sandbox, self._box, self._handle = sandbox, connected, handle
        self.pid = handle.pid

    async def send(self, data: bytes) -> None:
        """Type. Raises NotFound when the shell has ended."""
        with calling(self._sandbox.backend):
            await self._box.pty.send_stdin(self.pid, data)

    async def resize(self, rows: int, cols: int) -> None:
        """Change the size in characters."""
        import e2b

        with calling(self._sandbox.backend):
            await self._box.pty.resize(self.pid, e2b.PtySize(rows=rows, cols=cols))

    async def kill(self) -> None:
        """End the shell."""
        with calling(self._sandbox.backend):
            await self._box.pty.kill(self.pid)

    async def wait(self) -> int:
        """The shell's exit code, when it ends. Raises when the stream breaks."""
        import e2b

        with calling(self._sandbox.backend):
            try:
                return (await self._handle.wait()).exit_code
            except e2b.CommandExitException as ended:
                return ended.exit_code

    async def close(self) -> None:
        """Stop following; the shell lives on."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._handle.disconnect(), 5)


async def open_pty(
    sandbox: Sandbox, on_data: OnData, *, rows: int, cols: int, envs: dict[str, str]
) -> Pty | DirectPty:
    """A new shell. While `on_data` waits, the shell's output waits too."""
    import e2b

    with contextlib.suppress(NoDoor):
        wanted = {"rows": rows, "cols": cols, "cwd": sandbox.workdir, "envs": envs}
        return await _direct(sandbox, on_data, **wanted)
    with calling(sandbox.backend):
        connected = await open_box(sandbox)
        handle = await connected.pty.create(
            e2b.PtySize(rows=rows, cols=cols),
            on_data=on_data,
            cwd=sandbox.workdir or None,
            envs=envs,
            timeout=0,
        )
    return Pty(sandbox, connected, handle)


async def reopen_pty(sandbox: Sandbox, pid: int, on_data: OnData) -> Pty | DirectPty:
    """Follow a shell that is already there. Raises NotFound."""
    with contextlib.suppress(NoDoor):
        return await _direct(sandbox, on_data, pid=pid)
    with calling(sandbox.backend):
        connected = await open_box(sandbox)
        handle = await connected.pty.connect(pid, on_data=on_data, timeout=0)
    return Pty(sandbox, connected, handle)


async def _direct(sandbox: Sandbox, on_data: OnData, **wanted: Any) -> DirectPty:
    """By the runtime's own door. Raises NoDoor where there is none."""
    found = await database_sync_to_async(running_at)(sandbox)
    return await open_direct(found, sandbox, on_data, **wanted)
