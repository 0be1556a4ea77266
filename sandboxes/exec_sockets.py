"""The socket of a command's page."""

import asyncio
import contextlib
import json
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async

from kode_web.sockets import GONE, NOT_FOUND, WATCH_AGE_S, RowSocket

from . import exec, ledger
from .models import Command, Sandbox

# A lost nudge is made good after this.
LOOK_EVERY_S = 1.0
FRAME_CHARS = 32 << 10


class CommandSocket(RowSocket):
    """The output of one command, from a character on.

    Address: `/ws/sandboxes/<code>/commands/<command>/?after=<n>`, where `n` is how
    many characters of it the browser has. The server sends JSON:
        {"at": n, "stream": "out"|"err"|"note", "d": text}   in order, without gaps
        {"end": s}   it ended so; then close 4410
    Closes: 4401 signed out, 4404 not found, 4410 ended, 1013 too many.
    """

    model = Sandbox
    _sending: asyncio.Task[None] | None = None

    async def joined(self) -> None:
        """Find the command and follow it."""
        code = self.scope["url_route"]["kwargs"]["command"]
        query = parse_qs(self.scope["query_string"].decode("ascii", "replace"))
        after = query.get("after", ["0"])[0]
        self._after = int(after) if after.isdecimal() and len(after) < 12 else 0
        self._news = asyncio.Event()
        command = await database_sync_to_async(self._find)(code)
        if command is None:
            await self.close(NOT_FOUND)
            return
        self._group = ledger.group(command)
        if self.channel_layer is not None:
            await self.channel_layer.group_add(self._group, self.channel_name)
        self._sending = asyncio.create_task(self._send_on(command))

    def _find(self, code: str) -> Command | None:
        found: Command | None = self.row.commands.filter(code=code).first()
        return found

    async def left(self) -> None:
        """Stop following."""
        if self._sending:
            self._sending.cancel()
            if self.channel_layer is not None:
                await self.channel_layer.group_discard(self._group, self.channel_name)

    async def changed(self, _message: dict[str, Any]) -> None:
        """A nudge: there is more."""
        self._news.set()

    async def _send_on(self, command: Command) -> None:
        """Send what there is, until the command has ended and all is sent."""
        look = database_sync_to_async(self._look, thread_sensitive=False)
        while await self.is_allowed(WATCH_AGE_S):
            self._news.clear()
            pieces, ending = await look(command)
            for at, stream, text in pieces:
                for start in range(0, len(text), FRAME_CHARS):
                    part = text[start : start + FRAME_CHARS]
                    await self._tell({"at": at + start, "stream": stream, "d": part})
                self._after = at + len(text)
            if ending:
                await self._tell({"end": ending})
                await self.close(GONE)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOK_EVERY_S)

    def _look(self, command: Command) -> tuple[list[tuple[int, str, str]], str]:
        """What is new, and how it ended; the ending first, so that nothing is lost."""
        command.refresh_from_db(fields=["ended_at", "ending"])
        rows = exec.output(command, self._after)
        return [(row.at, row.stream, row.text) for row in rows], command.ending

    async def _tell(self, message: dict[str, object]) -> None:
        await self.send(text_data=json.dumps(message))
