"""A live sandbox as the server sees it: its control channel and the launcher."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandboxes.local.contract import BoxGone, BoxStats, Identity

from .channel import Channel, Field
from .launcher import LauncherClient

PING_S = 10.0
PTY_MASTER = os.makedev(5, 2)  # what every open /dev/ptmx is
LOOPBACKS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


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
        connection.setblocking(False)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise BoxGone("The sandbox has ended.") from error
        self._channel = Channel(connection)
        self._paused = paused
        if not paused:
            try:
                async with asyncio.timeout(PING_S):
                    await self._channel.call("ping")
            except TimeoutError as error:
                self._channel.close()
                raise BoxGone("The sandbox does not answer.") from error

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
        return await self._channel.call("exec", *fields, fds=fds)

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
        pid, master = await self._channel.call_for_fd("exec", *fields)
        found = os.fstat(master)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != PTY_MASTER:
            os.close(master)
            raise OSError(errno.EPROTO, "The sandbox passed something else")
        os.set_blocking(master, False)
        return pid, master

    async def wait(self, pid: int) -> int:
        """See contract.Box."""
        return await self._channel.call("wait", pid)

    async def signal(self, pid: int, number: int, *, tree: bool = False) -> None:
        """See contract.Box."""
        await self._channel.call("kill", pid, number, int(tree))

    async def dial(self, port: int) -> socket.socket:
        """See contract.Box."""
        _, descriptor = await self._channel.call_for_fd("dial", port)
        try:
            return _dialled(descriptor, port)
        except OSError as error:
            raise OSError(errno.EPROTO, "The sandbox passed something else") from error

    async def set_deadline(self, timeout_s: float) -> None:
        """See contract.Box."""
        if self._paused:
            self._channel.post("deadline", timeout_s)
        else:
            await self._channel.call("deadline", timeout_s)

    async def pause(self) -> None:
        """See contract.Box. Without a freezer every process is stopped instead."""
        if not await self._ask("pause"):
            await self._channel.call("all", 19)
        self._paused = True

    async def resume(self) -> None:
        """See contract.Box."""
        if not await self._ask("resume"):
            await self._channel.call("all", 18)
        self._paused = False

    async def kill(self) -> None:
        """See contract.Box."""
        await self._launcher.call("kill", sandbox_id=self.sandbox_id)
        self._channel.close()

    async def snapshot(self, snapshot_id: str) -> None:
        """See contract.Box."""
        await self._ask("snapshot", snapshot_id=snapshot_id)

    async def set_internet(self, allowed: bool) -> None:
        """See contract.Box."""
        await self._ask("set_internet", allowed=allowed)

    async def stats(self) -> BoxStats:
        """See contract.Box."""
        return BoxStats(**await self._ask("stats"))

    async def _ask(self, call: str, **arguments: bool | str) -> Any:
        """A call of the launcher about this sandbox. Raises BoxGone."""
        if self._channel.ended.is_set():
            raise BoxGone("The sandbox has ended.")
        return await self._launcher.call(call, sandbox_id=self.sandbox_id, **arguments)

    async def gone(self) -> None:
        """See contract.Box."""
        await self._channel.ended.wait()

    def let_go(self) -> None:
        """Close the channel and leave the sandbox alone."""
        with contextlib.suppress(OSError):
            self._channel.close()


def _exec_fields(
    argv: Sequence[str], identity: Identity, env: Mapping[str, str], cwd: str, size: str
) -> list[Field]:
    groups = ",".join(map(str, identity.groups))
    pairs = [f"{name}={value}" for name, value in env.items()]
    texts = [cwd, size, *argv, *pairs]
    if any("\0" in text for text in texts):
        raise OSError(errno.EINVAL, "A NUL byte in arguments or environment")
    if not argv:
        raise OSError(errno.EINVAL, "No command")
    ids: list[Field] = [identity.uid, identity.gid, groups]
    return [*ids, cwd, size, len(argv), *argv, *pairs]


def _dialled(descriptor: int, port: int) -> socket.socket:
    """The socket, if it is a stream to that port of the sandbox's loopback."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENOTSOCK, "not a socket")
    found = socket.socket(fileno=descriptor)
    try:
        if found.type != socket.SOCK_STREAM or found.family not in LOOPBACKS:
            raise OSError(errno.EPROTOTYPE, "not a TCP socket")
        if found.getpeername()[:2] != (LOOPBACKS[found.family], port):
            raise OSError(errno.EPROTOTYPE, "not connected to that port")
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found
