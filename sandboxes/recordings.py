"""Recordings of terminals: started and stopped by choice, kept as asciicast lines.

The format is asciicast v2 (asciinema): a header, then one JSON array per line of
seconds since the start, "o" for output or "r" for a resize, and the text.
"""

import asyncio
import codecs
import json
import time
import zlib
from collections.abc import Iterator

from channels.db import database_sync_to_async
from django.db import IntegrityError
from django.db.models import F
from django.utils import timezone

from kode_web.teams import secrets
from kode_web.teams.models import User

from . import actions
from .models import Recording, RecordingPart, Sandbox, Terminal

FLUSH_S = 1.0
# A recording ends by itself when it holds so much output.
MAX_BYTES = 16 << 20
# A part is written out when it holds this much; pieces wait no longer than FLUSH_S.
PART_BYTES = 256 << 10


class Recorder:
    """Takes what a session shows and writes it to one recording, in parts."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.is_full = False
        started = timezone.now() - recording.started_at
        self._begun = time.monotonic() - started.total_seconds()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines: list[str] = []
        self._size = 0
        self._total = recording.size_bytes
        self._news = asyncio.Event()

    def output(self, data: bytes) -> None:
        """Note output; what comes after MAX_BYTES is not recorded."""
        if self.is_full:
            return
        self._size += len(data)
        self._note("o", self._decoder.decode(data))
        self.is_full = self._total + self._size > MAX_BYTES

    def resized(self, rows: int, cols: int) -> None:
        """Note a new size in characters."""
        self._note("r", f"{cols}x{rows}")

    def _note(self, kind: str, text: str) -> None:
        seconds = round(time.monotonic() - self._begun, 6)
        self._lines.append(json.dumps([seconds, kind, text]))
        self._news.set()

    async def run(self) -> None:
        """Write what gathers, until it is cancelled or the recording is full."""
        while not self.is_full:
            await self._news.wait()
            await asyncio.sleep(0 if self._size > PART_BYTES else FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write all that is not written yet."""
        lines, size = self._lines, self._size
        self._lines, self._size = [], 0
        self._total += size
        self._news.clear()
        if lines:
            write = database_sync_to_async(_write, thread_sensitive=False)
            await write(self.recording, lines, size)


def _write(recording: Recording, lines: list[str], size: int) -> None:
    sealed = secrets.seal(zlib.compress("".join(f"{x}\n" for x in lines).encode()))
    RecordingPart.objects.create(recording=recording, sealed=sealed)
    rows = Recording.objects.filter(pk=recording.pk)
    rows.update(size_bytes=F("size_bytes") + size)


def start(user: User, terminal: Terminal, *, rows: int, cols: int) -> Recording:
    """Begin a recording, or return the one that runs."""
    try:
        recording = Recording.objects.create(
            terminal=terminal, started_by=user, rows=rows, cols=cols
        )
    except IntegrityError:
        return Recording.objects.get(terminal=terminal, ended_at=None)
    actions.record(
        terminal.sandbox,
        "recording.started",
        actor=user,
        name=terminal.name,
        recording=recording.code,
    )
    return recording


def running(terminal: Terminal) -> Recording | None:
    """The recording that a terminal is under, if any."""
    return terminal.recordings.filter(ended_at=None).first()


def end(recording: Recording, user: User | None = None) -> None:
    """End a recording; by nobody when the shell ended or it is full."""
    rows = Recording.objects.filter(pk=recording.pk, ended_at=None)
    if rows.update(ended_at=timezone.now()):
        terminal = recording.terminal
        actions.record(
            terminal.sandbox,
            "recording.ended",
            actor=user,
            name=terminal.name,
            recording=recording.code,
        )


def exist(sandbox: Sandbox) -> bool:
    """Whether a sandbox has any."""
    return Recording.objects.filter(terminal__sandbox=sandbox).exists()


def of_sandbox(sandbox: Sandbox) -> list[Recording]:
    """All recordings of a sandbox, newest first."""
    rows = Recording.objects.filter(terminal__sandbox=sandbox)
    return list(rows.select_related("terminal", "started_by"))


def lines(recording: Recording) -> Iterator[bytes]:
    """The recording as an asciicast file, in pieces of whole lines."""
    header = {
        "version": 2,
        "width": recording.cols,
        "height": recording.rows,
        "timestamp": int(recording.started_at.timestamp()),
        "title": f"{recording.terminal.sandbox}: {recording.terminal}",
        "env": {"TERM": "xterm-256color"},
    }
    yield json.dumps(header).encode() + b"\n"
    for part in recording.parts.iterator(chunk_size=16):
        yield zlib.decompress(secrets.unseal(bytes(part.sealed)))
