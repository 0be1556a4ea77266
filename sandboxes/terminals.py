"""Terminals of sandboxes: one shell, one ring of output, any number of viewers.

A `Session` lives in the web process for as long as the shell does; sockets come
and go. The shell is read only as fast as the viewer who types takes it, so a
flood waits in the sandbox and not in memory; a viewer who falls behind is moved
on, and never slows the others.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from channels.db import database_sync_to_async
from django.utils import timezone

from kode_web.teams.models import User

from . import actions, gateway
from .errors import Gone, NotFound, NotReady, SandboxError
from .models import Sandbox, Terminal
from .ring import Ring

logger = logging.getLogger(__name__)
MIN_WINDOW, MAX_WINDOW = 128 << 10, 1 << 20
FRAME_BYTES = 64 << 10
# Output that comes sooner after the last frame than this waits to be joined.
TICK_S = 0.005
# A viewer whose acknowledgements come back this fast may have more under way.
QUICK_ACK_S = 0.05
STALL_S = 30.0
INPUT_BYTES = 256 << 10
MAX_TERMINALS = 20
# How long a shell may take to show its prompt before it is typed to all the same.
PROMPT_S = 2.0

type SendBytes = Callable[[bytes], Awaitable[None]]
type SendControl = Callable[[dict[str, object]], Awaitable[None]]


class Viewer:
    """One socket's place in the output."""

    def __init__(self, send: SendBytes, control: SendControl, name: str) -> None:
        self.send, self.control, self.name = send, control, name
        self.sent = self.acked = 0
        self.window = MIN_WINDOW
        self.news = asyncio.Event()
        self.full_since: float | None = None
        self._sent_at: list[tuple[int, float]] = []

    @property
    def room(self) -> int:
        """How many bytes may be sent before the next acknowledgement."""
        return self.acked + self.window - self.sent

    def note_sent(self, size: int) -> None:
        """Count a frame."""
        self.sent += size
        self._sent_at.append((self.sent, time.monotonic()))

    def acknowledge(self, offset: int) -> None:
        """The browser has drawn everything before `offset`."""
        if not self.acked < offset <= self.sent:
            return
        self.acked, self.full_since = offset, None
        now, delay = time.monotonic(), 0.0
        while self._sent_at and self._sent_at[0][0] <= offset:
            delay = now - self._sent_at.pop(0)[1]
        if delay and delay < QUICK_ACK_S:
            self.window = min(MAX_WINDOW, self.window + self.window // 4)
        elif delay > 4 * QUICK_ACK_S:
            self.window = max(MIN_WINDOW, self.window // 2)
        self.news.set()

    def restart(self, offset: int) -> None:
        """Go on from another offset: nothing is under way any more."""
        self.sent = self.acked = offset
        self.full_since = None
        self._sent_at.clear()


class Session:
    """The shell of one Terminal row."""

    def __init__(self, sandbox: Sandbox, terminal: Terminal) -> None:
        self.sandbox, self.terminal = sandbox, terminal
        self.epoch = secrets.token_hex(4)
        self.ring = Ring()
        self.viewers: set[Viewer] = set()
        self.driver: Viewer | None = None
        self.size = (24, 80)
        self.exit_code: int | None = None
        self.is_over = asyncio.Event()
        self._pty: gateway.Pty | None = None
        self._room = asyncio.Event()
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._input_bytes = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, rows: int, cols: int) -> None:
        """Start the shell, or follow the one that is there. Raises SandboxError."""
        self.size = (rows, cols)
        if self.terminal.pid is None:
            environment = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
            self._pty = await gateway.open_pty(
                self.sandbox,
                self._take,
                rows=rows,
                cols=cols,
                envs={**self.sandbox.envs, **environment},
            )
            await database_sync_to_async(_opened)(self.terminal, self._pty.pid)
            first = self.terminal.command
        else:
            self._pty = await gateway.reopen_pty(
                self.sandbox, self.terminal.pid, self._take
            )
            first = ""
            await self.redraw()
        self._tasks = [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._type()),
        ]
        if first:
            self._tasks.append(asyncio.create_task(self._type_first(first)))

    async def _take(self, data: bytes) -> None:
        """Output from the shell; returns when there is room for more."""
        self.ring.append(data)
        for viewer in self.viewers:
            viewer.news.set()
        while self._is_full():
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), 1)

    def _is_full(self) -> bool:
        """Whether the viewer who types has a full window still to draw."""
        driver = self.driver
        if driver is None:
            return False
        stalled = driver.full_since
        if stalled is not None and time.monotonic() - stalled > STALL_S:
            return False
        return self.ring.end - driver.acked >= driver.window

    def acknowledge(self, viewer: Viewer, offset: int) -> None:
        """A viewer has drawn everything before `offset`."""
        viewer.acknowledge(offset)
        self._room.set()

    def join(self, viewer: Viewer, *, can_drive: bool) -> None:
        """Add a viewer; the first who may type sets the pace and the size."""
        self.viewers.add(viewer)
        if self.driver is None and can_drive:
            self.driver = viewer

    def leave(self, viewer: Viewer) -> None:
        """Remove a viewer; the shell goes on."""
        self.viewers.discard(viewer)
        if self.driver is viewer:
            self.driver = None
        self._room.set()

    def type(self, viewer: Viewer, data: bytes) -> bool:
        """Queue input; False when too much is waiting already."""
        if self._input_bytes + len(data) > INPUT_BYTES:
            return False
        if self.driver is not viewer:
            self.driver = viewer
            self._room.set()
        self._input_bytes += len(data)
        self._input.put_nowait(data)
        return True

    async def resize(self, viewer: Viewer, rows: int, cols: int) -> None:
        """Follow the size of whoever types."""
        if self.driver not in (viewer, None) or self._pty is None:
            return
        if (rows, cols) != self.size:
            self.size = (rows, cols)
            with contextlib.suppress(SandboxError):
                await self._pty.resize(rows, cols)

    async def redraw(self) -> None:
        """Make the program draw its screen again: it does after a resize."""
        if self._pty is None:
            return
        rows, cols = self.size
        with contextlib.suppress(SandboxError):
            await self._pty.resize(rows, max(2, cols - 1))
            await self._pty.resize(rows, cols)

    async def _type(self) -> None:
        """Send input in order, what has gathered in one piece."""
        while True:
            data = await self._input.get()
            while not self._input.empty():
                data += self._input.get_nowait()
            self._input_bytes -= len(data)
            assert self._pty is not None
            try:
                await self._pty.send(data)
            except NotFound:
                return
            except SandboxError as error:
                logger.info("terminal %s: %s", self.terminal.code, error)
            await database_sync_to_async(actions.touch)(self.sandbox)

    async def _type_first(self, command: str) -> None:
        """Type the command that the terminal was opened for, after its prompt."""
        deadline = time.monotonic() + PROMPT_S
        while not self.ring.end and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        data = f"{command}\n".encode()
        self._input_bytes += len(data)
        self._input.put_nowait(data)

    async def _follow(self) -> None:
        """Wait for the shell's end, or for the stream to break."""
        assert self._pty is not None
        try:
            self.exit_code = await self._pty.wait()
        except SandboxError as error:
            logger.info("terminal %s: %s", self.terminal.code, error)
        if self.exit_code is not None:
            await database_sync_to_async(_closed)(self.terminal, self.exit_code)
        self.finish()

    def finish(self) -> None:
        """Let everybody draw the rest and leave; the next viewer starts anew."""
        sessions.pop(self.terminal.code, None)
        self.is_over.set()
        for viewer in self.viewers:
            viewer.news.set()
        for task in self._tasks[1:]:
            task.cancel()


sessions: dict[str, Session] = {}
_opening: dict[str, asyncio.Lock] = {}


async def attach(sandbox: Sandbox, code: str, *, rows: int, cols: int) -> Session:
    """The session of a terminal, opened when this process has none.

    Raises NotFound for a terminal that is not the sandbox's or has ended, Gone
    and NotReady when the sandbox does not run, Unreachable to retry.
    """
    async with _opening.setdefault(code, asyncio.Lock()):
        known = sessions.get(code)
        if known is not None:
            return known
        if not sandbox.is_alive:
            raise Gone("This sandbox has ended.")
        if not sandbox.is_running:
            raise NotReady(f"This sandbox is {sandbox.state}.")
        terminal = await database_sync_to_async(_find)(sandbox, code)
        session = Session(sandbox, terminal)
        try:
            await session.open(rows, cols)
        except NotFound:
            await database_sync_to_async(_closed)(terminal, None)
            raise
        sessions[code] = session
        return session


def create_row(sandbox: Sandbox, user: User, command: str = "") -> Terminal:
    """A new terminal; its shell starts when the first viewer comes.

    A command is typed into it then.
    """
    alive = sandbox.terminals.filter(closed_at=None).count()
    if alive >= MAX_TERMINALS:
        raise NotReady(f"{alive} shells are open already. Close one first.")
    number = sandbox.terminals.count() + 1
    terminal = Terminal.objects.create(
        sandbox=sandbox, name=f"Shell {number}", opened_by=user, command=command
    )
    actions.record(sandbox, "terminal.opened", actor=user, name=terminal.name)
    return terminal


def close(user: User, terminal: Terminal) -> None:
    """End a shell for everybody."""
    if terminal.pid is not None and terminal.closed_at is None:
        command = f"kill -HUP {terminal.pid}; sleep 0.2; kill -KILL {terminal.pid}"
        with contextlib.suppress(SandboxError):
            gateway.run(terminal.sandbox, command, user="root", timeout_s=5)
    _closed(terminal, None)
    actions.record(terminal.sandbox, "terminal.closed", actor=user, name=terminal.name)


def _find(sandbox: Sandbox, code: str) -> Terminal:
    terminal = sandbox.terminals.filter(code=code).first()
    if terminal is None:
        raise NotFound("There is no such terminal.")
    if terminal.closed_at is not None:
        raise NotFound("This shell has ended.")
    return terminal


def _opened(terminal: Terminal, pid: int) -> None:
    terminal.pid = pid
    terminal.save(update_fields=["pid"])


def _closed(terminal: Terminal, exit_code: int | None) -> None:
    Terminal.objects.filter(pk=terminal.pk, closed_at=None).update(
        closed_at=timezone.now(), exit_code=exit_code
    )
