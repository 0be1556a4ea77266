"""The two ends of a command's output: what reads it and what a client follows."""

import asyncio
import contextlib
import os
import time
from collections import deque
from typing import Any

from .proto.process_pb import ProcessEvent

QUEUED_EVENTS = 2  # for one follower: 64 kB, then the command waits
GRACE_S = 0.1  # after the command, for the output of what it left behind
PIECE_BYTES = 4096  # what the kernel gives of a terminal at once
GATHER_S = 0.001  # between two reads of one terminal
UNHEARD_S = 0.005  # between reads of output that nobody follows: 6 MB/s at most


class Follower:
    """One client's view of a command's output: a short queue with back-pressure."""

    def __init__(self) -> None:
        self._events: deque[ProcessEvent] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self.closed = False

    async def put(self, event: ProcessEvent) -> None:
        """Queue an event; waits while the client is behind, unless it left."""
        while len(self._events) >= QUEUED_EVENTS and not self.closed:
            self._room.clear()
            await self._room.wait()
        if not self.closed:
            self._events.append(event)
            settle(self._wake)

    async def get(self, timeout_s: float) -> ProcessEvent | None:
        """The next event, or None: `timeout_s` passed or the follower is closed."""
        if not self._events and not self.closed:
            self._wake = asyncio.get_running_loop().create_future()
            timer = asyncio.get_running_loop().call_later(timeout_s, settle, self._wake)
            try:
                await self._wake
            finally:
                timer.cancel()
        if not self._events:
            return None
        self._room.set()
        return self._events.popleft()

    def close(self) -> None:
        self.closed = True
        self._events.clear()
        settle(self._wake)
        self._room.set()


class Output:
    """Reads one pipe or terminal of a command without blocking the loop."""

    def __init__(self, fd: int, field: str, size: int) -> None:
        os.set_blocking(fd, False)
        self.fd, self.field, self._size = fd, field, size
        self._is_terminal = os.isatty(fd)
        self._piece = PIECE_BYTES if self._is_terminal else size
        self._ready: asyncio.Future[bool] | None = None
        self._read_at = 0.0
        self._leaving = False

    async def read(self) -> bytes:
        """The next bytes; empty at the end, or when a command that ended is quiet."""
        await self._gather()
        while True:
            try:
                data = self._take()
                self._read_at = time.monotonic()
                return data
            except BlockingIOError:
                if not await self._readable():
                    return b""
            except OSError:  # EIO: the last holder of the terminal closed it
                return b""

    async def _gather(self) -> None:
        """Let a flood gather before the next read; a lone line never waits."""
        passed = time.monotonic() - self._read_at
        if passed < GATHER_S and self._is_terminal:
            await asyncio.sleep(GATHER_S - passed)

    def _take(self) -> bytes:
        """All that is there, up to one message: a terminal gives at most PIECE_BYTES
        at a time, and a message for each would cost more than the bytes.

        Raises OSError when there is nothing.
        """
        pieces = [os.read(self.fd, self._piece)]
        size = len(pieces[0])
        while pieces[-1] and size < self._size:
            try:
                pieces.append(os.read(self.fd, min(self._piece, self._size - size)))
            except OSError:  # nothing now, or the end: the next read tells which
                break
            size += len(pieces[-1])
        return b"".join(pieces)

    def leave(self) -> None:
        """The command ended: from now on only GRACE_S of silence is waited for."""
        self._leaving = True
        if self._ready is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(GRACE_S, settle, self._ready, False)

    def release(self, *, discard: bool) -> None:
        """Stop reading. `discard` keeps the pipe drained for those left behind."""
        loop = asyncio.get_running_loop()
        if discard:
            loop.add_reader(self.fd, self._discard)
        else:
            loop.remove_reader(self.fd)
            os.close(self.fd)

    async def _readable(self) -> bool:
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        if self._leaving:
            loop.call_later(GRACE_S, settle, self._ready, False)
        loop.add_reader(self.fd, settle, self._ready, True)
        try:
            return await self._ready
        finally:
            loop.remove_reader(self.fd)
            self._ready = None

    def _discard(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.fd)
        with contextlib.suppress(BlockingIOError):
            if not os.read(self.fd, 1 << 16):
                os.close(self.fd)
                return
        loop.call_later(UNHEARD_S, loop.add_reader, self.fd, self._discard)


def settle(future: "asyncio.Future[Any] | None", value: Any = None) -> None:
    """Resolve a future that may be done or absent."""
    if future is not None and not future.done():
        future.set_result(value)


async def writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)
