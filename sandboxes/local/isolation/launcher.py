"""The privileged process's side of the socket: one JSON packet a call.

A call is `{"id", "call", ...arguments}`; the answer `{"id", "value"}` or `{"id",
"error", "kind"}`, where kind is `unavailable`, `gone` or `system`.
"""

import asyncio
import dataclasses
import json
import logging
import socket
from pathlib import Path
from typing import Any

from sandboxes.local.contract import BoxGone, BoxSpec, IsolationUnavailable, Limits

from .engine import Engine

PACKET_BYTES = 1 << 18
logger = logging.getLogger(__name__)


class Launcher:
    """Answers the server's calls until it goes away."""

    def __init__(self, root: Path, owner: int, connection: socket.socket) -> None:
        self.engine = Engine(root, owner)
        self._connection = connection
        self._problem = ""
        self._found: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve; an engine that cannot start says so at each call."""
        try:
            self.engine.start()
            self._found = await self.engine.sweep()
        except IsolationUnavailable as error:
            self._problem = str(error)
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
        await loop.sock_sendall(self._connection, json.dumps(answer).encode())

    async def _call(self, name: str, **arguments: Any) -> Any:
        engine = self.engine
        if name == "probe":
            return await asyncio.to_thread(engine.probe)
        if self._problem:
            raise IsolationUnavailable(self._problem)
        match name:
            case "survivors":
                return self._found
            case "base_trees":
                return [dataclasses.asdict(tree) for tree in engine.base_trees()]
            case "build_base":
                return engine.build_base()
            case "create":
                limits = Limits(**arguments.pop("limits"))
                return await engine.create(BoxSpec(**arguments, limits=limits))
            case "state":
                return await engine.state(arguments["sandbox_id"])
            case "kill":
                return await engine.kill(arguments["sandbox_id"])
            case "pause":
                return await engine.pause(arguments["sandbox_id"])
            case "resume":
                return await engine.resume(arguments["sandbox_id"])
            case "limit":
                limits = Limits(**arguments["limits"])
                return await engine.limit(arguments["sandbox_id"], limits)
            case "set_internet":
                return await engine.set_internet(**arguments)
            case "stats":
                return dataclasses.asdict(await engine.stats(**arguments))
        raise ValueError(f"unknown call {name}")


def serve(root: Path, owner: int, connection: socket.socket) -> None:
    """Run the launcher to its end; the body of the forked process."""
    asyncio.run(Launcher(root, owner, connection).serve())


class LauncherClient:
    """The server's end: calls that run at the same time share one socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._next = 0
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
            await loop.sock_sendall(self._connection, packet.encode())
            return await future
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
