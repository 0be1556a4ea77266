"""The sockets of a sandbox's page."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from kode_web.sockets import (
    GONE,
    INPUT_AGE_S,
    MAX_MESSAGE_BYTES,
    NOT_FOUND,
    STALLED,
    TOO_BIG,
    TOO_MANY,
    RowSocket,
)
from kode_web.teams.access import May

from . import actions, ports, terminals
from .errors import Gone, NotFound, SandboxError
from .models import Sandbox
from .terminals import FRAME_BYTES, STALL_S, TICK_S, Session, Viewer

MAX_ROWS, MAX_COLS = 500, 1000
MESSAGES_PER_S = 200
PORTS_EVERY_S = 1.0
ECHO_BYTES = 512


class TerminalSocket(RowSocket):
    """A person's view of a terminal.

    Address: `/ws/sandboxes/<code>/terminals/<terminal>/?from=&epoch=&rows=&cols=`,
    where `from` is the offset of the first byte wanted, of the run named `epoch`.

    From the server, binary frames are output. Text frames are JSON:
        {"start": n, "epoch": e, "reset": b, "drive": b}   the next byte is
                    number n; with reset, clear the screen first: history before
                    it is lost or was not asked for
                    `modes` is to be written first, and `live` is the number of
                    the first byte that is new to everybody: what a program asked
                    the terminal before it was answered then
        {"size": [rows, cols], "yours": b}   the shell's size; yours when it
                    follows this browser, which is that of who types
        {"drive": b} whether the person may type, when that changed
        {"recording": b} whether what is shown is being recorded, when that changed
        {"exit": n} the shell ended, with its code or null; then close 4410
        {"wait": s} the terminal cannot be had now, says why; close 1013 may follow
        {"error": s} a message was not understood
    From the browser, binary frames are input. Text frames are JSON:
        {"ack": n}  everything before byte n is drawn
        {"size": [rows, cols]}   what this browser has room for
        {"record": b}   begin or end a recording; for who may type
        {"reply": s} what the terminal answers a program by itself; only that of
                    who drives reaches it
    Closes: 4401 signed out, 4403 may not type, 4404 not found, 4408 stalled,
    4410 gone, 1009 message too big, 1013 too many or try again.
    """

    model = Sandbox
    _session: Session | None = None
    _pump: asyncio.Task[None] | None = None

    async def joined(self) -> None:
        """Attach and begin to send."""
        query = _query(self.scope["query_string"])
        size = _size(query.get("rows"), query.get("cols")) or (24, 80)
        code = self.scope["url_route"]["kwargs"]["terminal"]
        try:
            session = await terminals.attach(self.row, code, rows=size[0], cols=size[1])
        except SandboxError as error:
            await self._turn_away(error)
            return
        self._budget = _Budget(MESSAGES_PER_S)
        self._viewer = Viewer(self._send_bytes, self._send_control, size)
        session.join(self._viewer, may_drive=May.DRIVE in self.may)
        self._session = session
        self._pump = asyncio.create_task(self._run(session, query))

    async def left(self) -> None:
        """Leave the session; the shell lives on."""
        if self._session is not None:
            self._session.leave(self._viewer)
        if self._pump is not None:
            self._pump.cancel()

    async def may_changed(self) -> None:
        """A role was raised or lowered while the socket is open."""
        if self._session is not None:
            may_drive = May.DRIVE in self.may
            self._session.allow(self._viewer, may_drive=may_drive)
            await self._send_control({"drive": may_drive})

    async def _turn_away(self, error: SandboxError) -> None:
        if isinstance(error, NotFound):
            await self._send_control({"exit": None})
            await self.close(GONE if "ended" in str(error) else NOT_FOUND)
        elif isinstance(error, Gone):
            await self._send_control({"exit": None})
            await self.close(GONE)
        else:
            await self._send_control({"wait": str(error)})
            await self.close(TOO_MANY)

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """Input or control; what is malformed is answered and forgotten."""
        size = len(bytes_data if bytes_data is not None else text_data or "")
        if size > MAX_MESSAGE_BYTES:
            await self.close(TOO_BIG)
        elif self._session is None:
            return
        elif bytes_data is not None:
            await self._take_input(self._session, bytes_data)
        else:
            await self._take_control(self._session, text_data or "")

    async def _take_input(self, session: Session, data: bytes) -> None:
        if not await self.is_allowed(INPUT_AGE_S):
            return
        if May.DRIVE not in self.may:
            return
        if not self.row.is_running:
            await self._send_control({"wait": f"This sandbox is {self.row.state}."})
            return
        if not session.type(self._viewer, data):
            await self.close(TOO_BIG)

    async def _take_control(self, session: Session, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict) and isinstance(message.get("ack"), int):
            # As many as there were frames; a lost one would hold up the shell.
            session.acknowledge(self._viewer, message["ack"])
            return
        if not self._budget.spend():
            return
        match message:
            case {"size": [int(rows), int(cols)]}:
                if size := _size(rows, cols):
                    session.resize(self._viewer, size)
            case {"record": bool(on)}:
                if await self.is_allowed(INPUT_AGE_S) and May.DRIVE in self.may:
                    await session.record(self.person, on=on)
            case {"reply": str(reply)}:
                if session.driver is self._viewer:
                    await self._take_input(session, reply.encode("utf-8", "replace"))
            case _:
                await self._send_control({"error": "This message is not understood."})

    async def _run(self, session: Session, query: Mapping[str, str]) -> None:
        """Send output to the end, then say how the shell ended."""
        try:
            await self._begin(session, query)
            while await self._send_next(session):
                continue
            if session.exit_code is None:
                await self._send_control({"wait": "The connection was lost."})
                await self.close(TOO_MANY)
            else:
                await self._send_control({"exit": session.exit_code})
                await self.close(GONE)
        except asyncio.CancelledError:
            raise
        except Exception:
            # The outermost frame of this task: a broken socket ends it.
            with contextlib.suppress(Exception):
                await self.close(STALLED)

    async def _begin(self, session: Session, query: Mapping[str, str]) -> None:
        """Say where the output starts: where it broke off, or at what is kept."""
        wanted = query.get("from", "")
        same = query.get("epoch") == session.epoch and wanted.isdecimal()
        offset = int(wanted) if same and len(wanted) < 16 else -1
        if session.ring.start <= offset <= session.ring.end:
            self._viewer.restart(offset)
            await self._say_start(session, reset=False)
        elif session.is_resumed and "epoch" in query:
            # It followed the shell before this process did, and has its screen.
            self._viewer.restart(session.ring.end)
            await self._say_start(session, reset=False, gap=True)
        else:
            await self._start_over(session)

    async def _start_over(self, session: Session) -> None:
        offset, prefix = session.ring.replay_start()
        self._viewer.restart(offset)
        await self._say_start(session, reset=True, prefix=prefix)
        if offset > 0 and session.ring.is_full_screen:
            session.redraw()

    async def _say_start(
        self, session: Session, *, reset: bool, prefix: bytes = b"", gap: bool = False
    ) -> None:
        await self._send_control(
            {
                "start": self._viewer.sent,
                "epoch": session.epoch,
                "reset": reset,
                "cut": reset and (self._viewer.sent > 0 or session.is_cut),
                "gap": gap or (reset and session.is_resumed),
                "live": session.ring.end,
                "modes": prefix.decode("latin-1"),
                "drive": May.DRIVE in self.may,
            }
        )

    async def _send_next(self, session: Session) -> bool:
        """Send one frame, or wait for news; False when all is sent and over."""
        viewer = self._viewer
        if viewer.sent < session.ring.start:
            await self._start_over(session)
        size = session.size, session.driver is viewer
        if viewer.told != size:
            viewer.told = size
            await self._send_control({"size": list(size[0]), "yours": size[1]})
        is_recorded = session.recorder is not None
        if viewer.told_recorded != is_recorded:
            viewer.told_recorded = is_recorded
            await self._send_control({"recording": is_recorded})
        waiting = session.ring.end - viewer.sent
        if waiting and viewer.room > 0:
            data = session.ring.read(viewer.sent, min(FRAME_BYTES, viewer.room))
            viewer.note_sent(len(data))
            await viewer.send(data)
            # A key's echo goes at once and a full frame too; what lies between is a
            # burst whose rest is about to come.
            is_burst = ECHO_BYTES < len(data) < FRAME_BYTES // 4
            await asyncio.sleep(TICK_S if is_burst else 0)
            return True
        if not waiting and session.is_over.is_set():
            return False
        viewer.news.clear()
        if waiting:
            viewer.full_since = viewer.full_since or time.monotonic()
            if time.monotonic() - viewer.full_since > STALL_S:
                await self.close(STALLED)
                raise ConnectionError("stalled")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(viewer.news.wait(), STALL_S)
        return True

    async def _send_bytes(self, data: bytes) -> None:
        await self.send(bytes_data=data)

    async def _send_control(self, message: dict[str, object]) -> None:
        await self.send(text_data=json.dumps(message))


class SandboxSocket(RowSocket):
    """News of one sandbox.

    Address: `/ws/sandboxes/<code>/`. The server sends JSON:
        {"state": s, "stage": s, "ends_at": iso or null}   now, and on each change
        {"ports": [{"number", "process"}]}                 when they change
    The browser sends {"visible": b}: nobody looks for ports while nobody sees them.
    Closes like every socket: 4401, 4404, 1013.
    """

    model = Sandbox

    async def joined(self) -> None:
        """Follow the group of the sandbox, and look at its ports."""
        self._shown: list[dict[str, object]] | None = None
        self._told: dict[str, object] = {}
        self._visible = asyncio.Event()
        self._visible.set()
        if self.channel_layer is not None:
            await self.channel_layer.group_add(
                actions.group(self.row.code), self.channel_name
            )
        await self._send_state()
        self._looking = asyncio.create_task(self._look())

    async def left(self) -> None:
        """Leave the group."""
        if hasattr(self, "_looking"):
            self._looking.cancel()
            if self.channel_layer is not None:
                await self.channel_layer.group_discard(
                    actions.group(self.row.code), self.channel_name
                )

    async def changed(self, _message: dict[str, Any]) -> None:
        """A nudge: something about the sandbox is new."""
        if await self.is_allowed(0):
            await self._send_state()

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """Whether anybody sees the page."""
        if text_data == '{"visible":false}':
            self._visible.clear()
        else:
            self._visible.set()

    async def _send_state(self) -> None:
        row = self.row
        news = {
            "state": row.state,
            "stage": actions.stage(row),
            "ends_at": row.ends_at.isoformat() if row.ends_at else None,
        }
        if news != self._told:
            self._told = news
            await self.send(text_data=json.dumps(news))

    async def _look(self) -> None:
        """Now and then; a lost nudge is made good here too."""
        while True:
            await self._visible.wait()
            if self.row.is_running:
                found = await asyncio.to_thread(ports.listening_or_none, self.row)
                shown = [{"number": p.number, "process": p.process} for p in found]
                if shown != self._shown:
                    self._shown = shown
                    await self.send(text_data=json.dumps({"ports": shown}))
            await asyncio.sleep(PORTS_EVERY_S)
            if not await self.is_allowed(PORTS_EVERY_S):
                return
            await self._send_state()


class _Budget:
    """So many messages a second; what is above is dropped."""

    def __init__(self, per_s: int) -> None:
        self._per_s, self._left, self._at = per_s, float(per_s), time.monotonic()

    def spend(self) -> bool:
        now = time.monotonic()
        self._left = min(self._per_s, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _query(raw: bytes) -> dict[str, str]:
    return {k: v[0] for k, v in parse_qs(raw.decode("ascii", "replace")).items()}


def _size(rows: object, cols: object) -> tuple[int, int] | None:
    """A size in characters, None when it is none."""
    try:
        size = int(str(rows)), int(str(cols))
    except ValueError:
        return None
    return size if 1 <= size[0] <= MAX_ROWS and 2 <= size[1] <= MAX_COLS else None
