"""One look at the event log for a whole process, whatever the number of viewers.

It only wakes those who watch an agent; each reads by its own cursor. A wake-up
that is lost, as when ids are committed out of order, delays by SAFETY_S at most.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from django.db import DatabaseError
from django.db.models import Max

from .models import AgentEvent

logger = logging.getLogger(__name__)

LOOK_S = 0.1
SAFETY_S = 2.0
BATCH = 2000


class Tail:
    """Looks for new events while anybody watches."""

    def __init__(self) -> None:
        """Nobody watches yet."""
        self._watchers: defaultdict[int, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def watch(self, agent_id: int) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set whenever the agent has news."""
        woken = asyncio.Event()
        self._watchers[agent_id].add(woken)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield woken
        finally:
            self._watchers[agent_id].discard(woken)
            if not self._watchers[agent_id]:
                del self._watchers[agent_id]

    async def _look(self) -> None:
        last: int | None = None
        while self._watchers:
            try:
                last, agents = await database_sync_to_async(_news)(last)
            except DatabaseError:
                logger.warning("the database does not answer; looking again")
                agents = set()
            for agent_id in agents:
                for woken in self._watchers.get(agent_id, ()):
                    woken.set()
            await asyncio.sleep(LOOK_S)


def _news(last: int | None) -> tuple[int, set[int]]:
    """The newest event's id, and the agents that have news since `last`."""
    if last is None:
        return AgentEvent.objects.aggregate(newest=Max("pk"))["newest"] or 0, set()
    rows = AgentEvent.objects.filter(pk__gt=last).order_by("pk")
    found = list(rows.values_list("pk", "agent_id")[:BATCH])
    return (found[-1][0] if found else last), {agent for _, agent in found}


_tails: WeakKeyDictionary[asyncio.AbstractEventLoop, Tail] = WeakKeyDictionary()


def tail() -> Tail:
    """The tail of this process's event loop."""
    return _tails.setdefault(asyncio.get_running_loop(), Tail())
