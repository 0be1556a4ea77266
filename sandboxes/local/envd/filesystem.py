"""The RPC service `filesystem.Filesystem`: entries and watches."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from protobuf.wkt import Timestamp

from sandboxes.local.contract import BoxGone

from .agent import AgentLost, Entry, show
from .commands import choice
from .context import (
    Services,
    client_left,
    expiring,
    keepalive_s,
    timeout_s,
    unary_limit,
    username,
)
from .errors import connect_error
from .proto import filesystem_pb as pb
from .proto.filesystem_connect import Filesystem

MAX_DEPTH = 64
QUEUED_BYTES = 2 << 20  # of one watch's events; then the oldest are lost
EVENT_BYTES = 200  # of an event besides its texts
MAX_WATCHERS = 64  # of the polling kind, in one sandbox
KINDS = {"f": pb.FileType.FILE, "d": pb.FileType.DIRECTORY}
EVENTS = {
    b"C": pb.EventType.CREATE,
    b"W": pb.EventType.WRITE,
    b"R": pb.EventType.REMOVE,
    b"N": pb.EventType.RENAME,
    b"M": pb.EventType.CHMOD,
}

Context = RequestContext[Any, Any]


class Watcher:
    """Events of one watch, kept until somebody takes them."""

    def __init__(self) -> None:
        self._events: deque[tuple[pb.FilesystemEvent, int]] = deque()
        self._bytes = 0
        self.closed = self.lost = False
        self.rid = b""
        self._news = asyncio.Event()

    def add(self, fields: list[bytes] | None) -> None:
        """Take an event of the agent; None means that the watch is lost."""
        if fields is None:
            self.lost = True
            self.close()
        elif event := parse(fields):
            size = EVENT_BYTES + sum(map(len, fields))
            self._events.append((event, size))
            self._bytes += size
            while self._bytes > QUEUED_BYTES:
                self.take()
            self._news.set()

    def take(self) -> pb.FilesystemEvent | None:
        """The oldest event, if there is one."""
        if not self._events:
            return None
        event, size = self._events.popleft()
        self._bytes -= size
        return event

    def take_all(self) -> list[pb.FilesystemEvent]:
        events = [event for event, _ in self._events]
        self._events.clear()
        self._bytes = 0
        return events

    def close(self) -> None:
        self.closed = True
        self._news.set()

    async def wait(self, seconds: float) -> None:
        """Return on news, when closed, or after `seconds`."""
        if self._events or self.closed:
            return
        self._news.clear()
        timer = asyncio.get_running_loop().call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()


class FilesystemService(Filesystem):
    """Each call is one request to the agent inside the sandbox."""

    def __init__(self, services: Services) -> None:
        self._services, self._agent = services, services.agent
        self._watchers: dict[str, Watcher] = {}

    async def stat(self, request: pb.StatRequest, ctx: Context) -> pb.StatResponse:
        found = self._agent.stat(username(ctx), request.path)
        return pb.StatResponse(entry=info(await call(found, request.path, ctx)))

    async def make_dir(
        self, request: pb.MakeDirRequest, ctx: Context
    ) -> pb.MakeDirResponse:
        made = self._agent.make_dir(username(ctx), request.path)
        return pb.MakeDirResponse(entry=info(await call(made, request.path, ctx)))

    async def move(self, request: pb.MoveRequest, ctx: Context) -> pb.MoveResponse:
        source, destination = request.source, request.destination
        moved = self._agent.move(username(ctx), source, destination)
        return pb.MoveResponse(entry=info(await call(moved, source, ctx)))

    async def list_dir(
        self, request: pb.ListDirRequest, ctx: Context
    ) -> pb.ListDirResponse:
        depth = min(request.depth or 1, MAX_DEPTH)
        listed = self._agent.list_dir(username(ctx), request.path, depth)
        entries = await call(listed, request.path, ctx)
        return pb.ListDirResponse(entries=[info(entry) for entry in entries])

    async def remove(
        self, request: pb.RemoveRequest, ctx: Context
    ) -> pb.RemoveResponse:
        removed = self._agent.remove(username(ctx), request.path)
        await call(removed, request.path, ctx)
        return pb.RemoveResponse()

    async def watch_dir(
        self, request: pb.WatchDirRequest, ctx: Context
    ) -> AsyncIterator[pb.WatchDirResponse]:
        watcher = await self._watch(request, ctx)
        loop = asyncio.get_running_loop()
        client_left.get().then(watcher.close)
        limit = timeout_s(ctx)
        timer = limit and loop.call_later(limit, watcher.close)
        try:
            started = pb.WatchDirResponse.StartEvent()
            yield pb.WatchDirResponse(event=choice("start", started))
            while not watcher.closed:
                await watcher.wait(keepalive_s(ctx))
                if event := watcher.take():
                    yield pb.WatchDirResponse(event=choice("filesystem", event))
                elif not watcher.closed:
                    yield KEEPALIVE
            if watcher.lost:
                text = "the watch ended with its sandbox or its agent"
                raise ConnectError(Code.UNAVAILABLE, text)
            raise ConnectError(Code.DEADLINE_EXCEEDED, "the watch's time is over")
        finally:
            if timer:
                timer.cancel()
            self._agent.unwatch(watcher.rid)

    async def create_watcher(
        self, request: pb.CreateWatcherRequest, ctx: Context
    ) -> pb.CreateWatcherResponse:
        if len(self._watchers) >= MAX_WATCHERS:
            text = f"the sandbox has {MAX_WATCHERS} watchers already"
            raise ConnectError(Code.RESOURCE_EXHAUSTED, text)
        watcher = await self._watch(request, ctx)
        watcher_id = "w" + secrets.token_hex(10)
        self._watchers[watcher_id] = watcher
        return pb.CreateWatcherResponse(watcher_id=watcher_id)

    async def get_watcher_events(
        self, request: pb.GetWatcherEventsRequest, ctx: Context
    ) -> pb.GetWatcherEventsResponse:
        watcher = self._watcher(request.watcher_id)
        return pb.GetWatcherEventsResponse(events=watcher.take_all())

    async def remove_watcher(
        self, request: pb.RemoveWatcherRequest, ctx: Context
    ) -> pb.RemoveWatcherResponse:
        self._agent.unwatch(self._watcher(request.watcher_id).rid)
        del self._watchers[request.watcher_id]
        return pb.RemoveWatcherResponse()

    def _watcher(self, watcher_id: str) -> Watcher:
        watcher = self._watchers.get(watcher_id)
        if watcher is not None and watcher.closed:
            del self._watchers[watcher_id]
            watcher = None
        if watcher is None:
            text = f"watcher with id {watcher_id} not found"
            raise ConnectError(Code.NOT_FOUND, text)
        return watcher

    async def _watch(
        self, request: pb.WatchDirRequest | pb.CreateWatcherRequest, ctx: Context
    ) -> Watcher:
        watcher = Watcher()
        watching = self._agent.watch(
            username(ctx),
            request.path,
            recursive=request.recursive,
            include_entry=request.include_entry,
            on_event=watcher.add,
        )
        watcher.rid = await call(watching, request.path, ctx)
        return watcher


KEEPALIVE = pb.WatchDirResponse(
    event=choice("keepalive", pb.WatchDirResponse.KeepAlive())
)


async def call[T](asked: Awaitable[T], path: str, ctx: Context) -> T:
    """Wait for the agent, its errors as Connect errors about `path`."""
    try:
        with expiring(path):
            async with unary_limit(ctx):
                return await asked
    except (OSError, LookupError, ValueError, AgentLost, BoxGone) as problem:
        raise connect_error(problem, path) from problem


def info(entry: Entry) -> pb.EntryInfo:
    found = pb.EntryInfo(
        name=entry.name,
        type=KINDS.get(entry.kind, pb.FileType.UNSPECIFIED),
        path=entry.path,
        size=entry.size,
        mode=entry.mode,
        permissions=entry.permissions,
        owner=entry.owner,
        group=entry.group,
        modified_time=Timestamp(seconds=entry.modified_s, nanos=entry.modified_ns),
        metadata=entry.metadata,
        is_symlink=entry.is_link,
    )
    if entry.is_link:
        found.symlink_target = entry.target
    return found


def parse(fields: list[bytes]) -> pb.FilesystemEvent | None:
    """An event from the agent's fields: kind, name, and maybe an entry's."""
    kind = EVENTS.get(fields[0])
    if kind is None or len(fields) < 2:
        return None
    event = pb.FilesystemEvent(name=show(fields[1]), type=kind)
    if fields[2:]:
        event.entry = info(Entry.parse(fields[2:]))
    return event
