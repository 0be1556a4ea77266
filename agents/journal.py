"""The write-ahead journal of tool calls: each effect happens at most once.

A call is written down as `executing` before it begins and closed after it ends,
both under the run's fence. A call found `executing` by a later attempt was cut
off by a crash: a reading one runs again, any other is sealed, and the model is
told that it may or may not have taken effect.
"""

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from kode_web.teams import access
from kode_web.teams.access import May

from . import events, policy
from .events import Draft
from .models import Agent, Run, ToolCall

SEALED = (
    "This call was interrupted by a restart; it may or may not have taken effect. "
    "Check before you repeat it."
)
STOPPED = "It was stopped before it ended."


class RightsLost(Exception):
    """Whoever the agent works for may no longer use it."""


@dataclass(frozen=True)
class Asked:
    """A tool call as the model asked for it."""

    name: str
    args: dict[str, Any]
    call_id: str
    step: int


@dataclass(frozen=True)
class Entry:
    """What the journal says of a call.

    `call` is to be executed when its state is `executing`, waits for a person
    when `pending`, and has its result otherwise.
    """

    call: ToolCall

    @property
    def must_run(self) -> bool:
        """Whether it is now the caller's to execute."""
        return self.call.state == ToolCall.State.EXECUTING

    @property
    def must_wait(self) -> bool:
        """Whether a person decides first."""
        return self.call.state == ToolCall.State.PENDING


def authorise(run: Run) -> Agent:
    """The agent, read anew, if its people still may use it. Raises RightsLost.

    Checked at every call: a right taken away in mid-run counts at once.
    """
    agent = Agent.objects.select_related("owner", "sandbox").get(pk=run.agent_id)
    for person in {agent.owner, run.author or agent.owner}:
        if person is None or May.DRIVE not in access.rights(person, agent):
            raise RightsLost(f"agent {agent.code}")
    return agent


def begin(run: Run, asked: Asked) -> Entry:
    """Write a call down before it happens. Raises Lost or RightsLost."""
    with transaction.atomic():
        events.hold(run)
        agent = authorise(run)
        call = ToolCall.objects.filter(
            agent_id=run.agent_id, step=asked.step, call_id=asked.call_id
        ).first()
        if call is None:
            call = _first(run, agent, asked)
        elif call.state == ToolCall.State.EXECUTING:
            _again(call)
        elif call.state == ToolCall.State.APPROVED:
            call.state, call.started_at = ToolCall.State.EXECUTING, timezone.now()
        else:
            return Entry(call)
        call.save()
        _tell(run, call)
    return Entry(call)


def _first(run: Run, agent: Agent, asked: Asked) -> ToolCall:
    """A new row in the state that policy gives it."""
    call = ToolCall(
        agent=agent,
        run=run,
        step=asked.step,
        call_id=asked.call_id,
        name=asked.name,
        args=asked.args,
    )
    lists = policy.Lists.of(agent.template)
    match policy.decision(asked.name, agent.mode, lists):
        case policy.Decision.ALLOW:
            call.state, call.started_at = ToolCall.State.EXECUTING, timezone.now()
        case policy.Decision.ASK:
            call.state = ToolCall.State.PENDING
        case policy.Decision.DENY:
            call.state, call.ended_at = ToolCall.State.DENIED, timezone.now()
            call.result = policy.why_denied(asked.name, agent.mode, lists)
    return call


def _again(call: ToolCall) -> None:
    """A call that an earlier attempt began and never closed."""
    if call.name not in policy.READS:
        call.state = ToolCall.State.SEALED
        call.result, call.ended_at = SEALED, timezone.now()


def finish(
    run: Run,
    call: ToolCall,
    result: str,
    *,
    failed: bool = False,
    output: str = "",
    exit_code: int | None = None,
) -> None:
    """Close a call that was executed. Raises Lost."""
    with transaction.atomic():
        events.hold(run)
        call.state = ToolCall.State.FAILED if failed else ToolCall.State.DONE
        call.result, call.output, call.exit_code = result, output, exit_code
        call.ended_at = timezone.now()
        call.save()
        _tell(run, call)


def record_pid(run: Run, call: ToolCall, pid: int) -> None:
    """Note the process of a command, so that it can be found after a crash."""
    call.pid = pid
    ToolCall.objects.filter(pk=call.pk, run__agent_id=run.agent_id).update(pid=pid)


def _tell(run: Run, call: ToolCall) -> None:
    events.append(run.agent_id, told(call), run_id=run.pk)


def told(call: ToolCall) -> Draft:
    """The event that a call's row has changed."""
    step = f"{call.run_id}-{call.step}"
    return Draft("call", {"call": call.code, "step": step, "state": call.state})
