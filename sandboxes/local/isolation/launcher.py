"""The privileged process's side of the socket: one JSON packet a call.

A call is `{"id", "call", ...arguments}`; the answer `{"id", "value"}` or `{"id",
"error", "kind"}`, where kind is `unavailable`, `gone` or `system`.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
from pathlib import Path
from typing import Any

from sandboxes.local.contract import BoxGone, IsolationUnavailable

from . import checks, syscalls
from .engine import Engine

PACKET_BYTES = 1 << 18
logger = logging.getLogger(__name__)


class Launcher:
    """Answers the server's calls until it goes away."""

    def __init__(
        self, root: Path, owner: int, connection: socket.socket, problem: str
    ) -> None:
        self.engine = Engine(root, owner)
        self._connection = connection
        self._problem = problem
        self._found: list[str] | None = None
        self._starting = asyncio.Lock()
        self._sending = asyncio.Lock()  # a loop waits for one writer of a socket
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until the other end of the socket is closed."""
        loop = asyncio.get_running_loop()
        self._connection.setblocking(False)
        while packet := await loop.sock_recv(self._connection, PACKET_BYTES):
            task = asyncio.create_task(self._answer(json.loads(packet)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.close()

    async def _answer(self, request: dict[str, Any]) -> None:
        answer = {"id": request.pop("id")}
        try:
            answer["value"] = await self._call(request.pop("call"), **request)
        except IsolationUnavailable as error:
            answer |= {"error": str(error), "kind": "unavailable"}
        except (BoxGone, KeyError) as error:
            answer |= {"error": str(error), "kind": "gone"}
        except Exception as error:
            # The outermost frame of a call: the server must hear of any failure.
            logger.warning("call failed", exc_info=True)
            answer |= {"error": str(error), "kind": "system"}
        loop = asyncio.get_running_loop()
        async with self._sending:
            with contextlib.suppress(OSError):  # the server went away meanwhile
                await loop.sock_sendall(self._connection, json.dumps(answer).encode())

    async def _call(self, name: str, **arguments: Any) -> Any:
        engine = self.engine
        if name == "probe":
            return await asyncio.to_thread(engine.probe)
        if name == "base_trees":
            return [dataclasses.asdict(tree) for tree in engine.base_trees()]
        found = await self._started()
        match name:
            case "survivors":
                return found
            case "build_base":
                return engine.build_base()
            case "create":
                return await engine.create(checks.spec(arguments))
            case "snapshots":
                return engine.snapshots.all()
            case "remove_snapshot":
                snapshot_id = checks.sandbox_id(arguments["snapshot_id"])
                return engine.remove_snapshot(snapshot_id)
        return await self._call_one(name, arguments)

    async def _started(self) -> list[str]:
        """Start the engine at the first call that needs it; what lived then.

        Not before: `doctor` asks what the machine gives and must touch nothing.
        """
        async with self._starting:
            if self._found is None and not self._problem:
                try:
                    self._found = await self.engine.start()
                except IsolationUnavailable as error:
                    self._problem = str(error)
                except OSError as error:
                    logger.exception("the engine does not start")
                    self._problem = f"Sandboxes cannot be prepared here: {error}"
            if self._found is None:
                raise IsolationUnavailable(self._problem)
            return self._found

    async def _call_one(self, name: str, arguments: dict[str, Any]) -> Any:
        """A call about one sandbox, by its id."""
        engine, sandbox_id = self.engine, checks.sandbox_id(arguments["sandbox_id"])
        match name:
            case "state":
                return await engine.state(sandbox_id)
            case "kill":
                return await engine.kill(sandbox_id)
            case "pause":
                return await engine.pause(sandbox_id)
            case "resume":
                return await engine.resume(sandbox_id)
            case "snapshot":
                snapshot_id = checks.sandbox_id(arguments["snapshot_id"])
                return await engine.snapshot(sandbox_id, snapshot_id)
            case "limit":
                limits = checks.limits(arguments["limits"])
                return await engine.limit(sandbox_id, limits)
            case "set_internet":
                allowed = arguments["allowed"] is True
                return await engine.set_internet(sandbox_id, allowed)
            case "stats":
                return dataclasses.asdict(await engine.stats(sandbox_id))
        raise ValueError(f"unknown call {name}")


def serve(root: Path, owner: int, connection: socket.socket) -> None:
    """Run the launcher to its end; the body of the forked process."""
    problem = ""
    try:
        # Before there is a thread: each keeps the mounts it began with.
        syscalls.private_mounts()
    except OSError as error:
        problem = f"This machine allows no mounts of our own: {error}"
    asyncio.run(Launcher(root, owner, connection, problem).serve())


class LauncherClient:
    """The server's end: calls that run at the same time share one socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
        self._sending = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take answers."""
        self._connection.setblocking(False)
        self._reader = asyncio.create_task(self._read())

    def close(self) -> None:
        """Let go of the launcher, which then ends."""
        if self._reader:
            self._reader.cancel()
        self._connection.close()

    async def call(self, name: str, **arguments: Any) -> Any:
        """Ask and wait. Raises what contract.Driver names."""
        loop = asyncio.get_running_loop()
        self._next += 1
        number = self._next
        future = self._pending[number] = loop.create_future()
        packet = json.dumps({"id": number, "call": name, **arguments})
        try:
            async with self._sending:
                await loop.sock_sendall(self._connection, packet.encode())
            return await future
        except BrokenPipeError as error:
            raise IsolationUnavailable("The launcher has ended.") from error
        finally:
            self._pending.pop(number, None)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while packet := await loop.sock_recv(self._connection, PACKET_BYTES):
            answer = json.loads(packet)
            future = self._pending.get(answer["id"])
            if future is None or future.done():
                continue
            if "error" in answer:
                future.set_exception(_failure(answer))
            else:
                future.set_result(answer["value"])
        for future in self._pending.values():
            if not future.done():
                future.set_exception(IsolationUnavailable("The launcher has ended."))


def _failure(answer: dict[str, Any]) -> Exception:
    kinds = {"unavailable": IsolationUnavailable, "gone": BoxGone}
    return kinds.get(answer["kind"], OSError)(answer["error"])
