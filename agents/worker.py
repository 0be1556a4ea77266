"""The worker: claims runs, works on them, keeps their leases, ends in order.

It polls the database, since that is the only thing that every deployment has;
one indexed query each POLL_S.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time

from channels.db import database_sync_to_async
from django.db import DatabaseError

from . import lease
from .models import Run
from .runner import CancellationToken, run_turn

logger = logging.getLogger(__name__)

# Under a fifth of the second within which a stop must take effect.
POLL_S = 0.2
# What a stopping worker leaves its turns to come to an end by themselves.
GRACE_S = 5


class Worker:
    """Up to `room` turns at once in this process."""

    def __init__(self, room: int) -> None:
        """A worker with a name that no other has."""
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.room = room
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._runs: dict[int, Run] = {}
        self._tokens: dict[int, CancellationToken] = {}
        self._renewed = time.monotonic()

    async def work(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set, then hand back what is not done."""
        while not stopping.is_set():
            try:
                await self._look()
            except DatabaseError:
                logger.exception("the database does not answer")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), POLL_S)
        await self._hand_back()

    async def _look(self) -> None:
        """One look: new runs, runs to stop, leases to renew."""
        if room := self.room - len(self._tasks):
            for run in await database_sync_to_async(lease.claim)(self.name, room):
                self._begin(run)
        if not self._runs:
            return
        runs = list(self._runs.values())
        for pk in await database_sync_to_async(lease.asked_to_stop)(runs):
            if token := self._tokens.get(pk):
                token.cancel()
        if time.monotonic() - self._renewed >= lease.RENEW_S:
            self._renewed = time.monotonic()
            for run in await database_sync_to_async(lease.renew)(runs):
                if token := self._tokens.get(run.pk):
                    token.cancel()

    def _begin(self, run: Run) -> None:
        token = CancellationToken()
        task = asyncio.create_task(run_turn(run, token), name=f"run-{run.pk}")
        self._runs[run.pk], self._tokens[run.pk] = run, token
        self._tasks[run.pk] = task
        task.add_done_callback(lambda done: self._ended(run, done))

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        for held in (self._tasks, self._runs, self._tokens):
            held.pop(run.pk, None)
        if not task.cancelled() and (error := task.exception()):
            # Its lease runs out, and a worker takes it up again.
            logger.error("run %s broke off", run.pk, exc_info=error)

    async def _hand_back(self) -> None:
        """Let turns end for GRACE_S, then give back those that did not."""
        tasks, runs = list(self._tasks.values()), dict(self._runs)
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=GRACE_S)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for run in runs.values():
            await database_sync_to_async(lease.release)(run)
