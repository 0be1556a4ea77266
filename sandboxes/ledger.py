"""What is written down of a command: its row, its output, how it ended.

Output is kept whole up to HEAD_CHARS; of the rest the last TAIL_CHARS are, with a
note of what lies between. Whoever follows a command holds its `Log`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction
from django.utils import timezone

from kode_web.teams.models import User

from .models import Command, CommandOutput, Sandbox
from .steps import record
from .text import UNFINISHED, plain

HEAD_CHARS, TAIL_CHARS = 512 << 10, 128 << 10
FLUSH_S = 0.2
# A running command is seen at least this often; see `exec.recover`.
SEEN_EVERY_S = 10.0
# Beyond the head nothing is stored, and a flood would only warm the room.
BREATH_CHARS, BREATH_S = 64 << 10, 0.01
EVENT_CHARS = 200
Stream = CommandOutput.Stream
Ending = Command.Ending


def begin(sandbox: Sandbox, text: str, *, actor: User | None, **fields: Any) -> Command:
    """A new line of the ledger. Raises IntegrityError for a request made before."""
    with transaction.atomic():
        command = Command.objects.create(
            sandbox=sandbox, text=text, actor=actor, **fields
        )
        record(
            sandbox,
            "command.started",
            actor=actor,
            command=command.code,
            text=text[:EVENT_CHARS],
            agent=command.agent_name,
        )
    return command


def finish(
    command: Command,
    ending: Command.Ending,
    *,
    exit_code: int | None = None,
    error: str = "",
    left_out: int = 0,
) -> None:
    """Close the line; only the first ending counts."""
    with transaction.atomic():
        rows = Command.objects.filter(pk=command.pk, ended_at=None)
        if ending == Ending.EXITED and rows.exclude(killed_by=None).exists():
            ending = Ending.KILLED
        closed = rows.update(
            ended_at=timezone.now(),
            ending=ending,
            exit_code=exit_code,
            error=error[:500],
            left_out=left_out,
        )
        if closed:
            record(
                command.sandbox,
                "command.ended",
                command=command.code,
                text=command.text[:EVENT_CHARS],
                ending=ending,
                exit_code=exit_code,
            )


def group(command: Command) -> str:
    """The channel group of those who follow its output."""
    return f"command.{command.code}"


async def nudge(command: Command) -> None:
    """Wake who follows it; a lost nudge only delays."""
    if layer := get_channel_layer():
        with contextlib.suppress(Exception):
            await layer.group_send(group(command), {"type": "changed"})


class _Text:
    """One stream as plain text; a sequence cut in two waits for its other half."""

    def __init__(self) -> None:
        self._rest = ""

    def take(self, text: str) -> str:
        text = self._rest + text
        cut = UNFINISHED.search(text)
        end = cut.start() if cut else len(text)
        self._rest = text[end:]
        return plain(text[:end])


class Log:
    """Takes a command's output as it comes and writes it down in pieces."""

    def __init__(
        self,
        command: Command,
        *,
        at: int = 0,
        heard: Callable[[str], None] | None = None,
    ) -> None:
        self.command, self._heard = command, heard
        self._at = self._written = at
        self._new: list[tuple[Stream, str]] = []
        self._tail: deque[tuple[Stream, str]] = deque()
        self._tail_chars = self._left_out = self._since_breath = 0
        self._texts = {Stream.OUT: _Text(), Stream.ERR: _Text()}
        self._news = asyncio.Event()

    def hear(self, stream: Stream) -> Callable[[str], Any]:
        """A callback for one stream of a command."""

        async def heard(text: str) -> None:
            if self._heard:
                self._heard(text)
            self.add(stream, self._texts[stream].take(text))
            self._since_breath += len(text)
            if self._since_breath > BREATH_CHARS:
                self._since_breath = 0
                await asyncio.sleep(BREATH_S)

        return heard

    def add(self, stream: Stream, text: str) -> None:
        """More output."""
        room = HEAD_CHARS - self._at
        if text[:room] and room > 0:
            self._new.append((stream, text[:room]))
            self._at += len(text[:room])
            self._news.set()
        rest = text[max(0, room) :]
        if rest:
            self._tail.append((stream, rest))
            self._tail_chars += len(rest)
        while self._tail_chars > TAIL_CHARS:
            stream, oldest = self._tail.popleft()
            over = min(len(oldest), self._tail_chars - TAIL_CHARS)
            self._left_out += over
            self._tail_chars -= over
            if oldest[over:]:
                self._tail.appendleft((stream, oldest[over:]))

    async def run(self) -> None:
        """Write what gathers, and that the command is seen, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), SEEN_EVERY_S)
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write all that is not written yet."""
        new, self._new = self._new, []
        self._news.clear()
        write = database_sync_to_async(self._write, thread_sensitive=False)
        await write(new)
        await nudge(self.command)

    def _write(self, new: list[tuple[Stream, str]]) -> None:
        joined: list[tuple[Stream, str]] = []
        for stream, text in new:
            if joined and joined[-1][0] == stream:
                text = joined.pop()[1] + text
            joined.append((stream, text))
        rows = []
        for stream, text in joined:
            rows.append(
                CommandOutput(
                    command=self.command, at=self._written, stream=stream, text=text
                )
            )
            self._written += len(text)
        CommandOutput.objects.bulk_create(rows)
        seen = Command.objects.filter(pk=self.command.pk)
        seen.update(seen_at=timezone.now())

    async def close(self, ending: Command.Ending, **facts: Any) -> None:
        """Write the rest and how it ended."""
        if self._left_out:
            note = f"\n[{self._left_out} characters are not kept]\n"
            self._new.append((Stream.NOTE, note))
        self._new.extend(self._tail)
        await self.flush()
        end = database_sync_to_async(finish, thread_sensitive=False)
        await end(self.command, ending, left_out=self._left_out, **facts)
        await nudge(self.command)
