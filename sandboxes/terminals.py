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
from weakref import WeakValueDictionary

from channels.db import database_sync_to_async

from kode_web.teams.models import User

from . import actions, gateway, recordings, shells
from .errors import Gone, NotFound, NotReady, SandboxError
from .models import Recording, Sandbox, Terminal
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
# How long a shell may take to show its prompt before it is typed to all the same.
PROMPT_S = 2.0
# What outlives this process: so much of the newest output, soon, but not too often.
KEPT_BYTES = 128 << 10
KEEP_AFTER_S, KEEP_EVERY_S = 0.3, 2.0
# A program must see the odd size before the right one, or it takes nothing for new.
NUDGE_S = 0.05

type Size = tuple[int, int]  # rows, columns
type SendBytes = Callable[[bytes], Awaitable[None]]
type SendControl = Callable[[dict[str, object]], Awaitable[None]]


class Viewer:
    """One socket's place in the output."""

    def __init__(self, send: SendBytes, control: SendControl, size: Size) -> None:
        self.send, self.control, self.size = send, control, size
        self.may_drive = False
        # The size that it was told last, and whether that was its own doing.
        self.told: tuple[Size, bool] | None = None
        self.told_recorded = False
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
        self.size: Size = (24, 80)
        self.exit_code: int | None = None
        self.is_over = asyncio.Event()
        # Another process followed this shell before: what it stored is in the ring.
        self.is_resumed = self.is_cut = False
        self._unkept = asyncio.Event()
        self.recorder: recordings.Recorder | None = None
        self._recording = asyncio.Lock()
        self._pty: gateway.Pty | gateway.DirectPty | None = None
        self._room = asyncio.Event()
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._input_bytes = 0
        self._resized = asyncio.Event()
        self._is_nudged = False
        self._noted_at = float("-inf")
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
            await database_sync_to_async(shells.opened)(self.terminal, self._pty.pid)
            first = self.terminal.command
        else:
            kept = await database_sync_to_async(shells.kept)(self.terminal)
            self._pty = await gateway.reopen_pty(
                self.sandbox, self.terminal.pid, self._take
            )
            first = ""
            self.is_resumed, self.is_cut = True, len(kept) > KEPT_BYTES // 2
            self.ring.append(kept)
            recording = await database_sync_to_async(recordings.running)(self.terminal)
            if recording:
                self._start_recorder(recording)
            self.redraw()
        self._tasks += [
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._keep()),
            asyncio.create_task(self._type()),
            asyncio.create_task(self._fit()),
        ]
        if first:
            self._tasks.append(asyncio.create_task(self._type_first(first)))

    async def _take(self, data: bytes) -> None:
        """Output from the shell; returns when there is room for more."""
        self.ring.append(data)
        if self.recorder:
            self.recorder.output(data)
        self._unkept.set()
        self._tell()
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

    def join(self, viewer: Viewer, *, may_drive: bool) -> None:
        """Add a viewer; the first who may type sets the pace and the size."""
        self.viewers.add(viewer)
        self.allow(viewer, may_drive=may_drive)

    def leave(self, viewer: Viewer) -> None:
        """Remove a viewer; the shell goes on."""
        self.viewers.discard(viewer)
        self.allow(viewer, may_drive=False)

    def allow(self, viewer: Viewer, *, may_drive: bool) -> None:
        """Follow a viewer's rights; somebody else drives when he no longer may."""
        viewer.may_drive = may_drive
        if self.driver is None or not self.driver.may_drive:
            others = (other for other in self.viewers if other.may_drive)
            self._drive(viewer if may_drive else next(others, None))

    def _drive(self, viewer: Viewer | None) -> None:
        """Let a viewer set the pace and the size."""
        self.driver = viewer
        self._room.set()
        if viewer is not None:
            self.resize(viewer, viewer.size)
        self._tell()

    def type(self, viewer: Viewer, data: bytes) -> bool:
        """Queue input; False when too much is waiting already."""
        if self._input_bytes + len(data) > INPUT_BYTES:
            return False
        if self.driver is not viewer:
            self._drive(viewer)
        self._input_bytes += len(data)
        self._input.put_nowait(data)
        return True

    def resize(self, viewer: Viewer, size: Size) -> None:
        """Follow the size of whoever types, and keep in mind that of the others."""
        viewer.size = size
        if self.driver is viewer and size != self.size:
            self.size = size
            self._resized.set()
            if self.recorder:
                self.recorder.resized(*size)
            self._tell()

    def redraw(self) -> None:
        """Make the program draw its screen again: it does after a resize."""
        self._is_nudged = True
        self._resized.set()

    async def _fit(self) -> None:
        """Give the shell the size that is wanted."""
        assert self._pty is not None
        while True:
            await self._resized.wait()
            self._resized.clear()
            rows, cols = self.size
            with contextlib.suppress(SandboxError):
                if self._is_nudged:
                    self._is_nudged = False
                    await self._pty.resize(rows, max(2, cols - 1))
                    await asyncio.sleep(NUDGE_S)
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
            self._note_use()

    def _note_use(self) -> None:
        """Write down that the sandbox is in use: seldom, and no key waits for it."""
        now = time.monotonic()
        if now - self._noted_at < actions.TOUCH_S:
            return
        self._noted_at = now
        touch = database_sync_to_async(actions.touch, thread_sensitive=False)
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(touch(self.sandbox)))

    async def _keep(self) -> None:
        """Store the newest output whenever there is some, but not all the time."""
        keep = database_sync_to_async(shells.keep, thread_sensitive=False)
        while True:
            await self._unkept.wait()
            await asyncio.sleep(KEEP_AFTER_S)
            self._unkept.clear()
            await keep(self.terminal, self.ring.tail(KEPT_BYTES))
            await asyncio.sleep(KEEP_EVERY_S)

    async def _type_first(self, command: str) -> None:
        """Type the command that the terminal was opened for, after its prompt."""
        deadline = time.monotonic() + PROMPT_S
        while not self.ring.end and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        data = f"{command}\n".encode()
        self._input_bytes += len(data)
        self._input.put_nowait(data)

    async def record(self, user: User | None, *, on: bool) -> None:
        """Begin or end a recording; to ask for what is so already changes nothing."""
        async with self._recording:
            if on and self.recorder is None and user is not None:
                rows, cols = self.size
                start = database_sync_to_async(recordings.start)
                recording = await start(user, self.terminal, rows=rows, cols=cols)
                recorder = self._start_recorder(recording)
                recorder.output(self.ring.tail(KEPT_BYTES))  # what is seen now
            elif not on and self.recorder:
                recorder, self.recorder = self.recorder, None
                await recorder.flush()
                await database_sync_to_async(recordings.end)(recorder.recording, user)
        self._tell()

    def _start_recorder(self, recording: Recording) -> recordings.Recorder:
        self.recorder = recordings.Recorder(recording)
        self._tasks.append(asyncio.create_task(self._run_recorder(self.recorder)))
        return self.recorder

    async def _run_recorder(self, recorder: recordings.Recorder) -> None:
        await recorder.run()
        if recorder is self.recorder:
            await self.record(None, on=False)  # it is full

    def _tell(self) -> None:
        """Wake every viewer's sender: there is something to say."""
        for viewer in self.viewers:
            viewer.news.set()

    async def _follow(self) -> None:
        """Wait for the shell's end, or for the stream to break."""
        assert self._pty is not None
        try:
            self.exit_code = await self._pty.wait()
        except SandboxError as error:
            logger.info("terminal %s: %s", self.terminal.code, error)
        if self.recorder:
            await self.recorder.flush()
        if self.exit_code is not None:
            await self.record(None, on=False)
            await database_sync_to_async(shells.ended)(self.terminal, self.exit_code)
        self.finish()

    def finish(self) -> None:
        """Let everybody draw the rest and leave; the next viewer starts anew."""
        sessions.pop(self.terminal.code, None)
        self.is_over.set()
        self._tell()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()


sessions: dict[str, Session] = {}
_opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


async def attach(sandbox: Sandbox, code: str, *, rows: int, cols: int) -> Session:
    """The session of a terminal, opened when this process has none.

    Raises NotFound for a terminal that is not the sandbox's or has ended, Gone
    and NotReady when the sandbox does not run, Unreachable to retry.
    """
    lock = _opening.setdefault(code, asyncio.Lock())
    async with lock:
        known = sessions.get(code)
        # Rights are those of the sandbox: it must be the terminal's own.
        if known is not None and known.sandbox.pk == sandbox.pk:
            return known
        if not sandbox.is_alive:
            raise Gone("This sandbox has ended.")
        if not sandbox.is_running:
            raise NotReady(f"This sandbox is {sandbox.state}.")
        terminal = await database_sync_to_async(shells.find)(sandbox, code)
        session = Session(sandbox, terminal)
        try:
            await session.open(rows, cols)
        except NotFound:
            await database_sync_to_async(shells.ended)(terminal, None)
            raise
        sessions[code] = session
        return session
