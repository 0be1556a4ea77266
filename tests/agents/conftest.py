"""A scripted language model, and a worker that runs in the test."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingPart,
    DeltaToolCall,
    FunctionModel,
)

from agents import lease, model
from agents.models import Agent, Run
from agents.runner import run_turn

# One answer: its text, or the tool calls it makes. It thinks before "Hmm.".
Answer = str | list[tuple[str, dict[str, Any]]]


class Script:
    """Answers in order; then it has nothing more to say."""

    def __init__(self) -> None:
        """No answers yet."""
        self.answers: list[Answer] = []
        self.seen: list[list[ModelMessage]] = []
        self.gate: asyncio.Event | None = None

    async def stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall | DeltaThinkingPart]]:
        """The next answer, a word at a time."""
        self.seen.append(list(messages))
        answer = self.answers.pop(0) if self.answers else "Nothing more."
        if isinstance(answer, str):
            if answer.startswith("Hmm."):
                yield {0: DeltaThinkingPart(content="What could it be? ")}
                yield {0: DeltaThinkingPart(content="Ah, that.")}
            for word in answer.split(" "):
                yield word + " "
                if self.gate is not None:
                    await self.gate.wait()
            return
        for index, (tool, args) in enumerate(answer):
            yield {
                index: DeltaToolCall(
                    name=tool,
                    json_args=json.dumps(args),
                    tool_call_id=f"call_{secrets.token_hex(4)}",
                )
            }


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """The language model of the test."""
    script = Script()
    built = FunctionModel(stream_function=script.stream, model_name="scripted")
    monkeypatch.setattr(model, "choose", lambda name="": model.Choice("test:scripted"))
    monkeypatch.setattr(model, "build", lambda choice: built)
    return script


@pytest.fixture
def work() -> Callable[[], Awaitable[int]]:
    """Run all turns that wait, as a worker would; returns how many there were."""

    async def work() -> int:
        count = 0
        while runs := await database_sync_to_async(lease.claim)("test", 5):
            await asyncio.gather(*(run_turn(run) for run in runs))
            count += len(runs)
        return count

    return work


async def latest_run(agent: Agent) -> Run:
    """The agent's newest run."""
    return await agent.runs.order_by("-pk").afirst()


async def until(
    condition: Callable[[], Awaitable[bool]], timeout_s: float = 10
) -> None:
    """Wait until it holds; the test fails after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)
