"""A sandbox with everything that serves it, and why one may not be had."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from .contract import Box, BoxGone
from .envd.app import Envd
from .envd.context import Services
from .metrics import Log, Samples
from .records import Record, State, Store


class TooMany(Exception):
    """The limit of running sandboxes is reached."""


class NotFound(Exception):
    """There is no such sandbox, or it is not in the state that was asked for."""


class Conflict(Exception):
    """The sandbox is being ended, or already is what was asked for."""


class TooLong(Exception):
    """A deadline past what a sandbox may live."""


class NoBox:
    """Stands for the box of a sandbox of which only files are kept."""

    def __init__(self, sandbox_id: str) -> None:
        self.sandbox_id = sandbox_id

    async def kill(self) -> None:
        """There is nothing to end."""

    def __getattr__(self, name: str) -> Any:
        raise BoxGone("The sandbox is paused without memory.")


@dataclass
class Sandbox:
    """Its record, its box and its envd; `ending` once it is being killed."""

    record: Record
    box: Box
    services: Services
    envd: Envd
    samples: Samples
    log: Log
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ending: bool = False
    timer: asyncio.TimerHandle | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def running(self) -> bool:
        return self.record.state is State.RUNNING and not self.ending

    def must_live(self) -> None:
        """Raises Conflict."""
        if self.ending:
            raise Conflict(f"Sandbox {self.record.sandbox_id} is being killed")

    @asynccontextmanager
    async def held(self, store: Store) -> AsyncIterator[None]:
        """Let it stand still for as long; paused it does. Raises Conflict."""
        async with self.lock:
            self.must_live()
            if self.record.state is State.PAUSED:
                yield
                return
            self.record.held = True
            store.save(self.record)
            try:
                await self.box.pause()
                yield
            finally:
                await self.let_go(store)

    async def let_go(self, store: Store) -> None:
        """Let it run again; also in a later run of the runtime."""
        await self.box.resume()
        self.record.held = False
        store.save(self.record)

    @classmethod
    def serving(cls, record: Record, box: Box) -> "Sandbox":
        """Put the services of a recorded sandbox around its box."""
        log = Log()
        services, envd = around(record, box, log)
        return cls(record, box, services, envd, Samples(record.cpus), log)

    def serve(self, box: Box) -> None:
        """Serve another box from now on; the one before has ended."""
        self.box = box
        self.services, self.envd = around(self.record, box, self.log)


def around(record: Record, box: Box, log: Log) -> tuple[Services, Envd]:
    services = Services(
        sandbox_id=record.sandbox_id,
        box=box,
        token=record.envd_token,
        env=record.env,
        log=log.add,
    )
    return services, Envd(services, lambda: record.cpus)
