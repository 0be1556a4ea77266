"""The runtime's side of `inside/fsagent.py`: file system work inside a sandbox."""

import array
import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sandboxes.local.contract import Box, BoxGone, Identity
from sandboxes.local.isolation import PYTHON_ARGV

logger = logging.getLogger(__name__)

AGENT_PATH = "/.kode/fsagent.py"
IDLE_S = 10.0  # an idle agent costs about 6 MB of the sandbox's memory
MESSAGE_BYTES = 1 << 18
MESSAGES_AT_ONCE = 32  # then other sandboxes have their turn
MAX_ANSWER_BYTES = 16 << 20
MAX_EVENT_BYTES = 32 << 10
MAX_DESCRIPTORS = 4
ENTRY_FIELDS = 14
AT_ONCE = 200  # entries: about 2 ms
CHANGING = {"mkdir", "move", "remove", "write"}
REPEATABLE = {"user", "stat", "list", "read"}  # asked again when the agent is lost


class AgentLost(Exception):
    """The agent ended in the middle of a request."""


@dataclass(frozen=True)
class Entry:
    """A file, directory or link as the sandbox sees it. `kind` is f, d or empty."""

    name: str
    kind: str
    path: str
    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_s: int
    modified_ns: int
    target: str
    is_link: bool
    metadata: dict[str, str]

    @classmethod
    def parse(cls, fields: list[bytes]) -> "Entry":
        """From the 14 fields of an entry; ValueError when they are not those."""
        if len(fields) != ENTRY_FIELDS:
            raise ValueError("not an entry")
        text = [show(field) for field in fields]
        flat = text[13].split("\1") if int(text[12]) else []
        return cls(
            name=text[0],
            kind=text[1],
            path=text[2],
            size=int(text[3]),
            mode=int(text[4]),
            permissions=text[5],
            owner=text[6],
            group=text[7],
            modified_s=int(text[8]),
            modified_ns=int(text[9]),
            target=text[10],
            is_link=text[11] == "1",
            metadata=dict(zip(flat[::2], flat[1::2], strict=False)),
        )


@dataclass(frozen=True)
class Account:
    """A user of the sandbox."""

    name: str
    home: str
    identity: Identity


@dataclass
class Pending:
    """A request on its way: its answer, and what a watch does with its events."""

    answer: asyncio.Future[tuple[list[bytes], int | None]]
    on_event: Callable[[list[bytes] | None], None] | None = None
    pieces: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


def show(raw: bytes) -> str:
    """A path or name for JSON: what is not UTF-8 becomes a replacement sign."""
    return raw.decode("utf-8", "replace")


def encode(text: str) -> bytes:
    """A path or name for the sandbox. Raises ValueError on a NUL."""
    if "\0" in text:
        raise ValueError("a path cannot hold a NUL")
    return text.encode("utf-8", "surrogateescape")


class Agent:
    """Asks one sandbox's agent; starts it when needed and ends it when idle.

    Calls raise OSError with the errno met inside, LookupError for a user that does
    not exist, AgentLost when the agent ended meanwhile (out of memory, or killed
    inside) and BoxGone with the sandbox.
    """

    def __init__(self, box: Box) -> None:
        self._box = box
        self._sock: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._pending: dict[bytes, Pending] = {}
        self._outbox: deque[bytes] = deque()
        self._next_id = 0
        self._idle: asyncio.TimerHandle | None = None
        self._known: dict[str, Account] = {}
        self.touched = False
        self._warming: asyncio.Task[None] | None = None

    def warm(self) -> None:
        """Start the agent now for a request that is likely to come."""
        if self._sock is None and not self._starting.locked():
            self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        with contextlib.suppress(OSError, BoxGone):
            async with self._starting:
                if self._sock is None:
                    await self._start()
                    self._settle()

    def know(self, accounts: dict[str, Account]) -> None:
        """Take the template's accounts for right until something is changed."""
        if not self.touched:
            self._known = accounts

    def touch(self) -> None:
        """From now on the sandbox may differ from its template."""
        self.touched, self._known = True, {}

    async def user(self, name: str) -> Account:
        """The account `name`; empty for the default one."""
        if name in self._known:
            return self._known[name]
        fields, _ = await self._ask("user", name)
        uid, gid, groups, home = (show(field) for field in fields)
        extra = tuple(int(group) for group in groups.split(",") if group)
        return Account(name or "user", home, Identity(int(uid), int(gid), extra))

    async def stat(self, user: str, path: str) -> Entry:
        return Entry.parse((await self._ask("stat", user, path))[0])

    async def make_dir(self, user: str, path: str) -> Entry:
        return Entry.parse((await self._ask("mkdir", user, path))[0])

    async def move(self, user: str, source: str, destination: str) -> Entry:
        return Entry.parse((await self._ask("move", user, source, destination))[0])

    async def remove(self, user: str, path: str) -> None:
        await self._ask("remove", user, path)

    async def list_dir(self, user: str, path: str, depth: int) -> list[Entry]:
        fields, _ = await self._ask("list", user, path, str(depth))
        found = []
        for at in range(0, len(fields), ENTRY_FIELDS):
            found.append(Entry.parse(fields[at : at + ENTRY_FIELDS]))
            if len(found) % AT_ONCE == 0:
                await asyncio.sleep(0)  # a long list holds nobody up
        return found

    async def open_read(self, user: str, path: str) -> tuple[str, int]:
        """(absolute path, descriptor) of a regular file; the caller closes it."""
        fields, fd = await self._ask("read", user, path)
        return show(fields[0]), regular(fd)

    async def open_write(
        self, user: str, path: str, metadata: dict[str, str]
    ) -> tuple[str, dict[str, str], int]:
        """Empty a file for writing: (absolute path, its metadata, descriptor)."""
        flat = [part for pair in metadata.items() for part in pair]
        fields, fd = await self._ask("write", user, path, *flat)
        text = [show(field) for field in fields]
        kept = dict(zip(text[1::2], text[2::2], strict=False))
        return text[0], kept, regular(fd)

    async def watch(
        self,
        user: str,
        path: str,
        *,
        recursive: bool,
        include_entry: bool,
        on_event: Callable[[list[bytes] | None], None],
    ) -> bytes:
        """Watch a directory; returns the watch's id for `unwatch`.

        `on_event` gets the fields of each event, and None when the watch is lost.
        """
        flags = [str(int(recursive)), str(int(include_entry))]
        rid, pending = await self._send("watch", user, path, *flags)
        pending.on_event = on_event
        try:
            await pending.answer
        except asyncio.CancelledError:
            self.unwatch(rid)
            raise
        return rid

    def unwatch(self, rid: bytes) -> None:
        """End a watch; nothing happens when it is already lost."""
        if self._pending.pop(rid, None) and self._sock is not None:
            self._outbox.append(b"\0".join((b"0", b"unwatch", b"root", rid)))
            self._flush()
            self._settle()

    def close(self) -> None:
        """End the agent; what is pending fails with AgentLost."""
        if self._idle is not None:
            self._idle.cancel()
        if self._sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock.fileno())
            loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None
        lost, self._pending = self._pending, {}
        self._outbox.clear()
        for pending in lost.values():
            self._fail(pending, AgentLost())

    async def _ask(self, op: str, *arguments: str) -> tuple[list[bytes], int | None]:
        if op in CHANGING:
            self.touch()
        for _ in range(2 if op in REPEATABLE else 1):
            rid, pending = await self._send(op, *arguments)
            try:
                return await pending.answer
            except AgentLost:
                continue
            except ProcessLookupError as problem:
                raise LookupError(arguments[0]) from problem
            finally:
                if self._pending.pop(rid, None):  # cancelled: a late file is closed
                    self._settle()
        raise AgentLost

    async def _send(self, op: str, *arguments: str) -> tuple[bytes, Pending]:
        fields = [op.encode(), *(encode(argument) for argument in arguments)]
        async with self._starting:
            if self._sock is None:
                await self._start()
        assert self._sock is not None
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._next_id += 1
        rid = b"%d" % self._next_id
        pending = Pending(asyncio.get_running_loop().create_future())
        self._pending[rid] = pending
        self._outbox.append(b"\0".join((rid, *fields)))
        self._flush()
        return rid, pending

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            await self._box.spawn(
                (*PYTHON_ARGV, AGENT_PATH),
                identity=Identity(0, 0),
                env={},
                cwd="/",
                fds=(null, null, null, theirs.fileno()),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(null)
            theirs.close()
        ours.setblocking(False)
        self._sock = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    def _flush(self) -> None:
        """Send what waits; the rest when the socket takes more."""
        assert self._sock is not None
        loop = asyncio.get_running_loop()
        while self._outbox:
            try:
                self._sock.send(self._outbox[0])
            except BlockingIOError:
                loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self.close()
                return
            self._outbox.popleft()
        loop.remove_writer(self._sock.fileno())

    def _read(self) -> None:
        for _ in range(MESSAGES_AT_ONCE):
            if self._sock is None:
                return
            try:
                message, fds = receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                message, fds = b"", []
            if not message:
                self.close()
                return
            self._take(message, fds)

    def _take(self, message: bytes, fds: list[int]) -> None:
        rid, _, rest = message.partition(b"\0")
        kind, *fields = rest.split(b"\0")
        pending = self._pending.get(rid)
        fd = fds.pop() if fds and pending and kind == b"ok" else None
        for unwanted in fds:
            os.close(unwanted)
        if pending is None:
            return
        if kind in (b"more", b"ok"):
            pending.pieces += fields
            pending.size_bytes += len(message)
            if pending.size_bytes > MAX_ANSWER_BYTES:
                self.close()
            elif kind == b"ok":
                self._finish(rid, pending, fd)
        elif kind == b"event":
            if not pending.answer.done():
                pending.answer.set_result(([], None))
            if pending.on_event and len(message) <= MAX_EVENT_BYTES:
                pending.on_event(fields)
        else:
            self._pending.pop(rid)
            self._fail(pending, problem(fields))
            self._settle()

    def _finish(self, rid: bytes, pending: Pending, fd: int | None) -> None:
        del self._pending[rid]
        if not pending.answer.done():
            pending.answer.set_result((pending.pieces, fd))
        elif fd is not None:
            os.close(fd)
        self._settle()

    def _fail(self, pending: Pending, error: Exception) -> None:
        if not pending.answer.done():
            pending.answer.set_exception(error)
        elif pending.on_event:
            pending.on_event(None)

    def _settle(self) -> None:
        if not self._pending and self._sock is not None and self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self.close)


def problem(fields: list[bytes]) -> Exception:
    """The error that the agent met."""
    try:
        return OSError(int(fields[0]), show(fields[1]))
    except (IndexError, ValueError):
        return AgentLost()


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it."""
    fds = array.array("i")
    space = socket.CMSG_LEN(MAX_DESCRIPTORS * fds.itemsize)
    flags = socket.MSG_CMSG_CLOEXEC
    message, ancillary, _, _ = sock.recvmsg(MESSAGE_BYTES, space, flags)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def regular(fd: int | None) -> int:
    """The descriptor if it is a regular file's; else it is closed and refused."""
    if fd is None:
        raise AgentLost
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AgentLost
    return fd
