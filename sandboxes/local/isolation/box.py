"""A live sandbox as the server sees it: its control channel and the launcher."""

import array
import asyncio
import contextlib
import errno
import itertools
import os
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sandboxes.local.contract import BoxGone, BoxStats, Identity

from .launcher import LauncherClient

PACKET_BYTES = 1 << 18
# A packet that is larger than the socket takes; the kernel's default is 208 kB.
MAX_REQUEST_BYTES = 200_000
MAX_FDS = 8


class Channel:
    """Requests to PID 1 over its control socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._pending: dict[bytes, asyncio.Future[tuple[int, list[int]]]] = {}
        self.ended = asyncio.Event()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._receive)

    async def call(
        self,
        operation: str,
        *fields: str | int | float | bytes,
        fds: Sequence[int] = (),
    ) -> tuple[int, list[int]]:
        """Ask and wait: a number and descriptors. Raises BoxGone or OSError."""
        number, future = self._prepare()
        try:
            self._send(operation, number, fields, fds)
            return await future
        finally:
            self._pending.pop(number, None)

    def post(self, operation: str, *fields: str | int | float | bytes) -> None:
        """Ask without waiting: a frozen PID 1 answers when it thaws."""
        number, future = self._prepare()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._send(operation, number, fields, ())

    def close(self) -> None:
        """Stop listening; everything that waits fails with BoxGone."""
        if self.ended.is_set():
            return
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self.ended.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(BoxGone("The sandbox has ended."))

    def _prepare(self) -> tuple[bytes, "asyncio.Future[tuple[int, list[int]]]"]:
        if self.ended.is_set():
            raise BoxGone("The sandbox has ended.")
        number = str(next(self._numbers)).encode()
        future = self._pending[number] = self._loop.create_future()
        return number, future

    def _send(
        self,
        operation: str,
        number: bytes,
        fields: Sequence[str | int | float | bytes],
        fds: Sequence[int],
    ) -> None:
        words = (f if isinstance(f, bytes) else str(f).encode() for f in fields)
        packet = b"\0".join((operation.encode(), number, *words))
        if len(packet) > MAX_REQUEST_BYTES:
            raise OSError(errno.E2BIG, "Arguments and environment are too long")
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        try:
            self._connection.sendmsg([packet], [rights] if fds else [])
        except BlockingIOError as error:
            raise OSError(errno.EAGAIN, "The sandbox does not take requests") from error
        except OSError as error:
            self.close()
            raise BoxGone("The sandbox has ended.") from error

    def _receive(self) -> None:
        while True:
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
            if not packet:
                self.close()
                return
            self._dispatch(packet, fds)

    def _dispatch(self, packet: bytes, fds: list[int]) -> None:
        """Give the answer to whoever waits; PID 1 is the sandbox's, so check it."""
        number, _, rest = packet.partition(b"\0")
        future = self._pending.pop(number, None)
        try:
            code, value = (int(word) for word in rest.split(b"\0", 1))
        except ValueError:
            code, value = errno.EPROTO, 0
        if future is None or future.done() or code:
            for descriptor in fds:
                os.close(descriptor)
            if future is not None and not future.done():
                future.set_exception(OSError(code, os.strerror(code)))
            return
        future.set_result((value, fds))


def _descriptors(extra: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


class LocalBox:
    """A `contract.Box`."""

    def __init__(
        self, sandbox_id: str, socket_path: Path, launcher: LauncherClient
    ) -> None:
        self.sandbox_id = sandbox_id
        self._launcher = launcher
        self._path = socket_path
        self._paused = False

    async def connect(self, *, paused: bool = False) -> None:
        """Open the control channel. Raises BoxGone when nobody listens."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise BoxGone("The sandbox has ended.") from error
        self._channel = Channel(connection)
        self._paused = paused
        if not paused:
            await self._channel.call("ping")

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        identity: Identity,
        env: Mapping[str, str],
        cwd: str,
        fds: Sequence[int],
    ) -> int:
        """See contract.Box."""
        fields = _exec_fields(argv, identity, env, cwd, "")
        pid, _ = await self._channel.call("exec", *fields, fds=fds)
        return pid

    async def spawn_pty(
        self,
        argv: Sequence[str],
        *,
        identity: Identity,
        env: Mapping[str, str],
        cwd: str,
        rows: int,
        cols: int,
    ) -> tuple[int, int]:
        """See contract.Box."""
        fields = _exec_fields(argv, identity, env, cwd, f"{rows}x{cols}")
        pid, fds = await self._channel.call("exec", *fields)
        master = _only(fds, stat.S_ISCHR)
        os.set_blocking(master, False)
        return pid, master

    async def wait(self, pid: int) -> int:
        """See contract.Box."""
        code, _ = await self._channel.call("wait", pid)
        return code

    async def signal(self, pid: int, number: int, *, tree: bool = False) -> None:
        """See contract.Box."""
        await self._channel.call("kill", pid, number, int(tree))

    async def dial(self, port: int) -> socket.socket:
        """See contract.Box."""
        _, fds = await self._channel.call("dial", port)
        dialled = socket.socket(fileno=_only(fds, stat.S_ISSOCK))
        family, kind = dialled.family, dialled.type
        if (
            family not in (socket.AF_INET, socket.AF_INET6)
            or kind != socket.SOCK_STREAM
        ):
            dialled.close()
            raise OSError(errno.EPROTO, "The sandbox passed something else")
        dialled.setblocking(False)
        return dialled

    async def set_deadline(self, timeout_s: float) -> None:
        """See contract.Box."""
        if self._paused:
            self._channel.post("deadline", timeout_s)
        else:
            await self._channel.call("deadline", timeout_s)

    async def pause(self) -> None:
        """See contract.Box. Without a freezer every process is stopped instead."""
        if not await self._launcher.call("pause", sandbox_id=self.sandbox_id):
            await self._channel.call("all", 19)
        self._paused = True

    async def resume(self) -> None:
        """See contract.Box."""
        if not await self._launcher.call("resume", sandbox_id=self.sandbox_id):
            await self._channel.call("all", 18)
        self._paused = False

    async def kill(self) -> None:
        """See contract.Box."""
        await self._launcher.call("kill", sandbox_id=self.sandbox_id)
        self._channel.close()

    async def set_internet(self, allowed: bool) -> None:
        """See contract.Box."""
        await self._launcher.call(
            "set_internet", sandbox_id=self.sandbox_id, allowed=allowed
        )

    async def stats(self) -> BoxStats:
        """See contract.Box."""
        return BoxStats(
            **await self._launcher.call("stats", sandbox_id=self.sandbox_id)
        )

    async def gone(self) -> None:
        """See contract.Box."""
        await self._channel.ended.wait()

    def let_go(self) -> None:
        """Close the channel and leave the sandbox alone."""
        with contextlib.suppress(OSError):
            self._channel.close()


def _exec_fields(
    argv: Sequence[str], identity: Identity, env: Mapping[str, str], cwd: str, size: str
) -> list[str | int]:
    groups = ",".join(map(str, identity.groups))
    pairs = [f"{name}={value}" for name, value in env.items()]
    fields = [identity.uid, identity.gid, groups, cwd, size, len(argv), *argv, *pairs]
    if any("\0" in field for field in fields if isinstance(field, str)):
        raise OSError(errno.EINVAL, "A NUL byte in arguments or environment")
    return fields


def _only(fds: list[int], expected: Callable[[int], bool]) -> int:
    """The one descriptor that was passed, if it is of the expected type."""
    if len(fds) == 1 and expected(os.fstat(fds[0]).st_mode):
        return fds[0]
    for descriptor in fds:
        os.close(descriptor)
    raise OSError(errno.EPROTO, "The sandbox passed something else")
