"""The event log of an agent: appended under the agent's lock, numbered gaplessly.

Whoever changes something that browsers show appends an event in the same
transaction. A worker's stream of small texts goes through a `Writer`, which
merges and group-commits it under the fence of its run.

Types, with what `data` holds; `step` names one answer of the model and is
"<run>-<number>":
    user    {text, by}               a person's message
    step    {step, model}            an answer begins; what it had is void
    text    {step, at, d}            more text of it, from character `at`
    think   {step, at, d}            more of its thinking
    answer  {step, text, thought, html, model, cut}   the whole of it, final
    call    {call, step, state}      the ToolCall row of that code changed
    output  {call, at, d}            more output of a command
    note    {text, tone}             a remark of the system's
    state, todos, queue, usage, sandbox {}   read the agent's row again
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from channels.db import database_sync_to_async
from django.db import DatabaseError, transaction

from .models import Agent, AgentEvent, Run

logger = logging.getLogger(__name__)

CHANNELS = {
    **dict.fromkeys(("user", "step", "text", "think", "answer"), "progress"),
    **dict.fromkeys(("call", "output", "note"), "progress"),
    **dict.fromkeys(("state", "todos", "queue", "usage", "sandbox"), "monitor"),
}
# Streamed pieces; at a run's end their whole is in another row.
PIECES = ("text", "think", "output")
WINDOW_S = 0.05


class Lost(Exception):
    """The run belongs to another worker by now, or is over."""


@dataclass
class Draft:
    """An event that has no number yet."""

    type: str
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def channel(self) -> str:
        """Which of the three channels it goes to."""
        if self.data.get("state") in ("pending", "approved", "denied"):
            return "control"
        return CHANNELS[self.type]

    def takes(self, other: "Draft") -> bool:
        """Whether `other` continues this piece of text, so that one row will do."""
        mine, its = self.data, other.data
        return (
            self.type == other.type
            and self.type in PIECES
            and mine.get("step") == its.get("step")
            and mine.get("call") == its.get("call")
            and mine["at"] + len(mine["d"]) == its["at"]
        )


def append(agent_id: int, *drafts: Draft, run_id: int | None = None) -> int:
    """Append events under the agent's lock; returns the new head."""
    with transaction.atomic():
        agent = Agent.objects.select_for_update().only("seq_head").get(pk=agent_id)
        rows = [
            AgentEvent(
                agent_id=agent_id,
                seq=agent.seq_head + number,
                run_id=run_id,
                channel=draft.channel,
                type=draft.type,
                data=draft.data,
            )
            for number, draft in enumerate(drafts, 1)
        ]
        AgentEvent.objects.bulk_create(rows)
        head = agent.seq_head + len(rows)
        Agent.objects.filter(pk=agent_id).update(seq_head=head)
    return head


def hold(run: Run) -> Run:
    """Lock a worker's run, agent first. Raises Lost when it is not its own.

    `run` is the worker's copy: its `attempt` is what it claimed.
    """
    Agent.objects.select_for_update().only("pk").get(pk=run.agent_id)
    found = (
        Run.objects.select_for_update()
        .filter(pk=run.pk, attempt=run.attempt, state=Run.State.RUNNING)
        .first()
    )
    if found is None:
        raise Lost(f"run {run.pk} attempt {run.attempt}")
    return found


def append_fenced(run: Run, drafts: list[Draft]) -> None:
    """Append a worker's events. Raises Lost when the run is not its own."""
    with transaction.atomic():
        hold(run)
        append(run.agent_id, *drafts, run_id=run.pk)


class Writer:
    """Collects one run's events, merges pieces of text and commits by the group."""

    def __init__(self, run: Run) -> None:
        """Start with nothing to write."""
        self.run = run
        self._drafts: list[Draft] = []
        self._turn = asyncio.Lock()
        self._is_closed = False
        self._task = asyncio.create_task(self._loop())
        # Called once when the run turns out to be another worker's.
        self.on_lost: Callable[[], object] = lambda: None

    def put(self, type: str, **data: Any) -> None:
        """Write this within WINDOW_S."""
        draft = Draft(type, data)
        if self._drafts and self._drafts[-1].takes(draft):
            self._drafts[-1].data["d"] += data["d"]
        else:
            self._drafts.append(draft)

    async def flush(self) -> None:
        """Return when all that was put is committed. Raises Lost."""
        async with self._turn:
            if self._drafts:
                drafts, self._drafts = self._drafts, []
                try:
                    await database_sync_to_async(append_fenced)(self.run, drafts)
                except DatabaseError:
                    self._drafts = drafts + self._drafts
                    raise

    async def close(self) -> None:
        """Write the rest, unless the run is lost, and stop."""
        self._is_closed = True
        await self._task
        with contextlib.suppress(Lost):
            await self.flush()

    async def _loop(self) -> None:
        while not self._is_closed:
            await asyncio.sleep(WINDOW_S)
            try:
                await self.flush()
            except Lost:
                self.on_lost()
                return
            except DatabaseError:
                logger.warning("events of run %s wait for the database", self.run.pk)
