"""Requests to PID 1 of a sandbox over its control socket.

One packet is one request or answer, see `inside/init.py`. What comes back is the
sandbox's word: numbers are parsed, descriptors accepted only where one is due.
"""

import array
import asyncio
import errno
import itertools
import os
import socket
import sys
from collections.abc import Sequence

from sandboxes.local.contract import BoxGone

PACKET_BYTES = 1 << 18
# A packet that is larger than the socket takes; the kernel's default is 208 kB.
MAX_REQUEST_BYTES = 200_000
MAX_FDS = 8

Field = str | int | float | bytes


class Channel:
    """The runtime's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._pending: dict[bytes, asyncio.Future[tuple[int, list[int]]]] = {}
        self._sending = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None
        self.ended = asyncio.Event()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._receive)

    async def call(
        self, operation: str, *fields: Field, fds: Sequence[int] = ()
    ) -> int:
        """Ask and wait: a number. Raises BoxGone or OSError."""
        value, passed = await self._ask(operation, fields, fds)
        _close(passed)
        return value

    async def call_for_fd(self, operation: str, *fields: Field) -> tuple[int, int]:
        """Ask and wait: a number and a descriptor, which the caller checks."""
        value, passed = await self._ask(operation, fields, ())
        if len(passed) != 1:
            _close(passed)
            raise OSError(errno.EPROTO, "The sandbox passed something else")
        return value, passed[0]

    def post(self, operation: str, *fields: Field) -> None:
        """Ask without waiting: a frozen PID 1 answers when it thaws."""
        packet = _packet(operation, next(self._numbers), fields)
        if self.ended.is_set():
            raise BoxGone("The sandbox has ended.")
        if not self._try_send(packet, ()):
            raise OSError(errno.EAGAIN, "The sandbox does not take requests")

    def close(self) -> None:
        """Stop listening; everything that waits fails with BoxGone."""
        if self.ended.is_set():
            return
        self.ended.set()
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        for future in (*self._pending.values(), self._room):
            if future is not None and not future.done():
                future.set_exception(BoxGone("The sandbox has ended."))

    async def _ask(
        self, operation: str, fields: Sequence[Field], fds: Sequence[int]
    ) -> tuple[int, list[int]]:
        if self.ended.is_set():
            raise BoxGone("The sandbox has ended.")
        number = next(self._numbers)
        packet = _packet(operation, number, fields)
        name = str(number).encode()
        future: asyncio.Future[tuple[int, list[int]]] = self._loop.create_future()
        self._pending[name] = future
        try:
            async with self._sending:
                while not self._try_send(packet, fds):
                    await self._wait_for_room()
            return await future
        finally:
            del self._pending[name]
            if sys.exc_info()[0] is not None:
                _give_up(future)

    def _try_send(self, packet: bytes, fds: Sequence[int]) -> bool:
        """False when the socket is full. Raises BoxGone or OSError."""
        if self.ended.is_set():
            raise BoxGone("The sandbox has ended.")
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        try:
            self._connection.sendmsg([packet], [rights] if fds else [])
        except BlockingIOError:
            return False
        except ConnectionError as error:
            self.close()
            raise BoxGone("The sandbox has ended.") from error
        return True

    async def _wait_for_room(self) -> None:
        room = self._room = self._loop.create_future()

        def wake() -> None:
            if not room.done():
                room.set_result(None)

        self._loop.add_writer(self._connection, wake)
        try:
            await room
        finally:
            self._room = None
            if not self.ended.is_set():
                self._loop.remove_writer(self._connection)

    def _receive(self) -> None:
        while not self.ended.is_set():
            try:
                packet, extra, _, _ = self._connection.recvmsg(
                    PACKET_BYTES,
                    socket.CMSG_SPACE(4 * MAX_FDS),
                    socket.MSG_CMSG_CLOEXEC,
                )
            except BlockingIOError:
                return
            except OSError:
                packet, extra = b"", []
            fds = _descriptors(extra)
            if packet:
                self._dispatch(packet, fds)
            else:
                _close(fds)
                self.close()

    def _dispatch(self, packet: bytes, fds: list[int]) -> None:
        """Give the answer to whoever waits."""
        number, _, rest = packet.partition(b"\0")
        future = self._pending.get(number)
        try:
            code, value = (int(word) for word in rest.split(b"\0", 1))
            failure = OSError(code, os.strerror(code)) if code else None
        except (ValueError, OverflowError):
            failure = OSError(errno.EPROTO, "The sandbox does not make sense")
        if future is None or future.done() or failure:
            _close(fds)
            if future is not None and not future.done() and failure:
                future.set_exception(failure)
            return
        future.set_result((value, fds))


def _packet(operation: str, number: int, fields: Sequence[Field]) -> bytes:
    """Raises OSError (E2BIG) for one that no socket takes."""
    words = (f if isinstance(f, bytes) else str(f).encode() for f in fields)
    packet = b"\0".join((operation.encode(), str(number).encode(), *words))
    if len(packet) > MAX_REQUEST_BYTES:
        raise OSError(errno.E2BIG, "Arguments and environment are too long")
    return packet


def _give_up(future: "asyncio.Future[tuple[int, list[int]]]") -> None:
    """Nobody takes this answer; close what it may have brought."""
    if future.done() and not future.cancelled() and future.exception() is None:
        _close(future.result()[1])


def _close(fds: Sequence[int]) -> None:
    for descriptor in fds:
        os.close(descriptor)


def _descriptors(extra: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
