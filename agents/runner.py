"""One turn of an agent: an idempotent function that any worker may take up.

The conversation is saved at each node of the model library's graph, so a turn
whose worker died goes on from its last node: the model's request is repeated,
a tool call is not (see `journal`). A call that a person must decide ends the
run as `paused` and holds nothing; the decision queues the next run.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from channels.db import database_sync_to_async
from pydantic_ai import (
    Agent as LibraryAgent,
)
from pydantic_ai import (
    ApprovalRequired,
    CancellationToken,
    DeferredToolRequests,
    DeferredToolResults,
    FunctionToolset,
    RunContext,
    ToolDenied,
)
from pydantic_ai import exceptions as library_errors
from pydantic_ai import tools as library_tools
from pydantic_ai.agent import CallToolsNode, ModelRequestNode
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    repair_messages,
)
from pydantic_ai.usage import RunUsage, UsageLimits

from sandboxes import markdown

from . import journal, lease, model, tools
from .events import Lost, Writer
from .models import Agent, Run, ToolCall
from .store import Store

__all__ = ["CancellationToken", "run_turn"]
logger = logging.getLogger(__name__)

STEPS = 50
TOOL_CALLS = 100
SECONDS = 3600
MAX_COST_USD = "5"
# What a turn begins with that a person paused and let go on.
GO_ON = "Go on where you stopped."


@dataclass
class Turn:
    """What a turn in progress holds; the library hands it to its hooks."""

    run: Run
    agent: Agent
    choice: model.Choice
    writer: Writer
    toolbox: tools.Toolbox
    store: Store
    conversation: Conversation
    shown: str = ""  # of the answer in progress

    def step_id(self, number: int) -> str:
        """The name of an answer in the event log."""
        return f"{self.run.pk}-{number}"


class Journalled(AbstractCapability[Turn]):
    """Puts the journal and the policy around every tool call."""

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Turn],
        *,
        call: ToolCallPart,
        tool_def: library_tools.ToolDefinition,
        args: Any,
        handler: Any,
    ) -> Any:
        """Execute a call that may run, or answer for it."""
        turn = ctx.deps
        asked = journal.Asked(
            name=call.tool_name,
            args=call.args_as_dict(),
            call_id=call.tool_call_id,
            step=answers(ctx.messages),
        )
        entry = await database_sync_to_async(journal.begin)(turn.run, asked)
        if entry.must_wait:
            raise ApprovalRequired
        if not entry.must_run:
            return entry.call.result
        return await execute(turn, entry.call, lambda: handler(args))


async def execute(turn: Turn, call: ToolCall, work: Any) -> str:
    """Do the work of a call and close it in the journal."""
    tools.current_call.set(call)
    failed = False
    try:
        result = str(await work())
    except tools.ToolFailed as error:
        result, failed = str(error), True
    except asyncio.CancelledError:
        await _close(turn, call, journal.STOPPED, failed=True)
        raise
    await _close(turn, call, result, failed=failed)
    return result


async def _close(turn: Turn, call: ToolCall, result: str, *, failed: bool) -> None:
    output = turn.toolbox.outputs.pop(call.pk, None)
    await turn.writer.flush()
    await database_sync_to_async(journal.finish)(
        turn.run,
        call,
        result,
        failed=failed,
        output=output.kept if output else "",
        exit_code=turn.toolbox.exits.pop(call.pk, None),
    )


def answers(messages: list[ModelMessage]) -> int:
    """How many answers of the model are in a conversation."""
    return sum(isinstance(message, ModelResponse) for message in messages)


async def run_turn(run: Run, token: CancellationToken | None = None) -> None:
    """Work on a claimed run until it is over or paused; records how it ended.

    `token` ends it as interrupted. Returns quietly when the run turns out to be
    another worker's.
    """
    writer = Writer(run)
    token = token or CancellationToken()
    writer.on_lost = token.cancel
    try:
        state, error = await _outcome(run, writer, token)
        await writer.close()
        await database_sync_to_async(lease.finish)(run, state, error=error)
    except Lost:
        logger.warning("run %s went to another worker", run.pk)
    finally:
        await writer.close()


async def _outcome(
    run: Run, writer: Writer, token: CancellationToken
) -> tuple[Run.State, str]:
    """How the turn ends, with a sentence for people when it fails."""
    try:
        turn = await _open(run, writer)
        if turn is None:
            return Run.State.DONE, ""
        return await _drive(turn, token), ""
    except library_errors.RunTimedOut:
        return Run.State.ERROR, "Stopped: the turn took longer than it may."
    except library_errors.RunCancelled:
        return Run.State.INTERRUPTED, ""
    except journal.RightsLost:
        return Run.State.ERROR, "Stopped: its people may no longer use this agent."
    except model.ModelMissing as error:
        return Run.State.ERROR, str(error)
    except library_errors.UsageLimitExceeded as error:
        return Run.State.ERROR, f"Stopped at a limit: {error}"
    except library_errors.AgentRunError as error:
        logger.warning("run %s: %s", run.pk, type(error).__name__)
        return Run.State.ERROR, _explain(error)
    except Lost:
        raise
    except Exception:  # the outermost loop of a turn: others must go on
        logger.exception("run %s failed", run.pk)
        return Run.State.ERROR, "The turn failed inside Kode Web; the log says why."


def _explain(error: library_errors.AgentRunError) -> str:
    """What a person can do about a failed model; never its raw answer."""
    match error:
        case library_errors.ModelAuthenticationError():
            return "The model's provider refuses the key. Check it, then send again."
        case library_errors.ModelQuotaExceededError():
            return "The quota at the model's provider is used up."
        case library_errors.ModelRateLimitError():
            return "The model's provider is busy. Wait a minute, then send again."
        case library_errors.ModelNotFoundError():
            return "The provider does not know this model. Check KODE_MODEL."
        case library_errors.ModelContextWindowExceededError():
            return "The chat is too long for the model. Start a new agent."
        case library_errors.ModelConnectionError() | library_errors.ModelServerError():
            return "The model's provider does not answer. Send again in a while."
        case _:
            return f"The model failed ({type(error).__name__}). Send again."


async def _open(run: Run, writer: Writer) -> Turn | None:
    """Load what the turn needs; None when its last answer is already saved."""
    agent = await database_sync_to_async(journal.authorise)(run)
    choice = model.choose(agent.template.get("model", ""))
    rows = Run.objects.filter(pk=run.pk)
    await database_sync_to_async(rows.update)(model=choice.name)
    store = Store(run)
    conversation = await store.load(agent.code) or Conversation(
        conversation_id=agent.code
    )
    if run.attempt > lease.MAX_ATTEMPTS:
        raise model.ModelMissing("The turn took its worker down too often: given up.")
    if run.attempt > 1:
        text = "A worker was lost; the turn goes on from its last step."
        writer.put("note", text=text, tone="plain")
    messages = conversation.messages
    if run.is_begun and messages and _is_final(messages[-1]):
        return None
    toolbox = tools.Toolbox(run, writer)
    return Turn(run, agent, choice, writer, toolbox, store, conversation)


def _is_final(message: ModelMessage) -> bool:
    return isinstance(message, ModelResponse) and not message.tool_calls


def _library_agent(turn: Turn) -> "LibraryAgent[Turn, str | DeferredToolRequests]":
    """The library's agent, made for this turn from the template's snapshot."""
    template = turn.agent.template
    names = template.get("tools") or list(turn.toolbox.all())
    offered = [tool for name, tool in turn.toolbox.all().items() if name in names]
    return LibraryAgent(
        model.build(turn.choice),
        deps_type=Turn,
        output_type=[str, DeferredToolRequests],
        instructions=template.get("system_prompt") or None,
        # One after the other: a line of a script relies on the one before.
        toolsets=[FunctionToolset(offered, sequential=True)],
        capabilities=[Journalled()],
        retries=3,
    )


def _limits(turn: Turn) -> UsageLimits:
    """The template's limits for this turn, on top of what the chat has used."""
    limits, used = turn.agent.template.get("limits", {}), turn.conversation.usage
    cost = Decimal(str(limits.get("cost_usd", MAX_COST_USD)))
    spent = used.cost or Decimal()
    tokens = limits.get("tokens")
    return UsageLimits(
        request_limit=used.requests + int(limits.get("steps", STEPS)),
        tool_calls_limit=used.tool_calls + int(limits.get("tool_calls", TOOL_CALLS)),
        total_tokens_limit=used.total_tokens + int(tokens) if tokens else None,
        cost_limit=spent + cost if turn.choice.is_priced else None,
    )


async def _beginning(turn: Turn) -> tuple[str | None, DeferredToolResults | None]:
    """The prompt and the decisions to begin with, both None to go on as it is."""
    run, conversation = turn.run, turn.conversation
    requests = conversation.deferred_tool_requests
    if run.kind == Run.Kind.APPROVAL and requests is not None:
        decided = await database_sync_to_async(_decisions)(turn.agent)
        wanted = {call.tool_call_id for call in requests.approvals}
        approvals = {key: value for key, value in decided.items() if key in wanted}
        return None, requests.build_results(approvals=approvals)
    if run.is_begun or run.kind == Run.Kind.APPROVAL:
        return None, None
    # Calls that an earlier turn left open are closed before the new prompt.
    conversation.messages = repair_messages(conversation.messages)
    conversation.deferred_tool_requests = None
    return run.prompt or GO_ON, None


def _decisions(agent: Agent) -> dict[str, bool | ToolDenied]:
    """What people decided, by call id; the newest call of an id counts."""
    calls = agent.calls.exclude(decided_at=None).order_by("step")
    return {
        call.call_id: ToolDenied(call.result)
        if call.state == ToolCall.State.DENIED
        else True
        for call in calls
    }


async def _drive(turn: Turn, token: CancellationToken) -> Run.State:
    """Go through the library's graph, saving at each node."""
    prompt, decided = await _beginning(turn)
    agent = _library_agent(turn)
    seconds = int(turn.agent.template.get("limits", {}).get("seconds", SECONDS))
    try:
        # Leaving the agent closes the connections to the model's provider.
        async with (
            agent,
            agent.iter(
                prompt,
                deps=turn,
                conversation=turn.conversation,
                deferred_tool_results=decided,
                usage_limits=_limits(turn),
                cancellation_token=token,
                timeout=seconds,
            ) as flow,
        ):
            async for node in flow:
                if isinstance(node, ModelRequestNode):
                    messages = [*flow.all_messages(), node.request]
                    # The request answers every call that waited for a decision.
                    turn.conversation.deferred_tool_requests = None
                    await _save(turn, messages, flow.usage)
                    await _answer(turn, node, flow.ctx, answers(messages) + 1)
                elif isinstance(node, CallToolsNode):
                    await _save(turn, flow.all_messages(), flow.usage)
                    async with node.stream(flow.ctx) as calls:
                        async for _ in calls:
                            pass
    except library_errors.RunCancelled as error:
        await _save(turn, error.all_messages(), error.usage)
        raise
    assert flow.result is not None
    output = flow.result.output
    waiting = output if isinstance(output, DeferredToolRequests) else None
    turn.conversation.deferred_tool_requests = waiting
    await _save(turn, flow.all_messages(), flow.usage)
    return Run.State.PAUSED if waiting else Run.State.DONE


async def _save(turn: Turn, messages: list[ModelMessage], usage: RunUsage) -> None:
    """Store the conversation as it is now, after all its events."""
    await turn.writer.flush()
    conversation = turn.conversation
    conversation.messages, conversation.usage = list(messages), replace(usage)
    await turn.store.save(conversation, scope=str(turn.agent.team_id))


async def _answer(turn: Turn, node: Any, ctx: Any, number: int) -> None:
    """Stream one answer of the model into the event log."""
    step, writer = turn.step_id(number), turn.writer
    writer.put("step", step=step, model=turn.choice.name)
    turn.shown, thought = "", ""
    cut = True
    try:
        async with node.stream(ctx) as stream:
            async for event in stream:
                if text := _text(event):
                    writer.put("text", step=step, at=len(turn.shown), d=text)
                    turn.shown += text
                elif text := _thought(event):
                    writer.put("think", step=step, at=len(thought), d=text)
                    thought += text
        cut = False
    finally:
        html = await asyncio.to_thread(markdown.render, turn.shown)
        writer.put(
            "answer",
            step=step,
            text=turn.shown,
            thought=thought,
            html=html,
            model=turn.choice.name,
            cut=cut,
        )


def _text(event: Any) -> str:
    match event:
        case PartStartEvent(part=TextPart(content=text)):
            return text
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return text
    return ""


def _thought(event: Any) -> str:
    match event:
        case PartStartEvent(part=ThinkingPart(content=text)):
            return text
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text)):
            return text or ""
    return ""
