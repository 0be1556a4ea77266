"""What people do with agents: each change is one transaction with its event.

Rights are the caller's to check by `access.get`; `decide` checks again inside
its transaction, since it lets a command run. The agent's row is locked first
everywhere, so that changes of one agent queue behind each other.
"""

import secrets
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import Team, User
from sandboxes import actions as sandbox_actions
from sandboxes.errors import Gone, Invalid, NotReady
from sandboxes.models import Sandbox, State

from . import events, journal
from .events import Draft
from .models import (
    Agent,
    AgentEvent,
    AgentTemplate,
    Conversation,
    Mode,
    QueuedMessage,
    Run,
    ToolCall,
)

MAX_PROMPT_CHARS = 100_000
MAX_QUEUED = 20
NAME_CHARS = 60
DEFAULT_TEMPLATE = "coder"


def templates(team: Team) -> QuerySet[AgentTemplate]:
    """The templates a team may use, newest versions of each: its own, built-in."""
    usable = AgentTemplate.objects.filter(Q(team=team) | Q(team=None))
    newest: dict[tuple[int | None, str], int] = {}
    for row in usable.order_by("version"):
        newest[row.team_id, row.slug] = row.pk
    return AgentTemplate.objects.filter(pk__in=newest.values())


def start(
    user: User,
    team: Team,
    prompt: str,
    *,
    sandbox: Sandbox | None = None,
    template: AgentTemplate | None = None,
    mode: str = "",
) -> Agent:
    """Make an agent and queue its first turn.

    Without a sandbox it makes one at its first tool call. Raises Invalid.
    """
    prompt = _checked(prompt)
    if sandbox is not None and sandbox.team_id != team.pk:
        raise Invalid("The sandbox belongs to another team.")
    if template is None:
        template = templates(team).get(team=None, slug=DEFAULT_TEMPLATE)
    if mode and mode not in Mode.values:
        raise Invalid(f"No mode {mode!r}.")
    with transaction.atomic():
        agent = Agent.objects.create(
            team=team,
            owner=user,
            name=_name(prompt),
            sandbox=sandbox,
            template=template.snapshot(),
            mode=mode or template.mode,
        )
        _say(agent, user, prompt)
    return agent


def send(user: User, agent: Agent, text: str) -> None:
    """Say something: a new turn, or the next one when a turn is under way."""
    text = _checked(text)
    with transaction.atomic():
        agent = _locked(agent)
        if agent.state in ("idle", "error") and agent.held_at is None:
            _drop_lost_sandbox(agent)
            _say(agent, user, text)
            return
        if agent.queued.count() >= MAX_QUEUED:
            raise NotReady(f"{MAX_QUEUED} messages wait already.")
        QueuedMessage.objects.create(agent=agent, author=user, text=text)
        events.append(agent.pk, Draft("queue"))


def unqueue(agent: Agent, code: str) -> None:
    """Take back a message that waits; nothing happens when it is gone."""
    with transaction.atomic():
        _locked(agent)
        QueuedMessage.objects.filter(agent=agent, code=code).delete()
        events.append(agent.pk, Draft("queue"))


def stop(user: User | None, agent: Agent) -> None:
    """End the turn under way; what waits for a decision is denied."""
    with transaction.atomic():
        _stop(user, _locked(agent))


def stop_in(sandbox: Sandbox) -> None:
    """Stop every agent that works in a sandbox which is about to end."""
    for agent in Agent.objects.alive().filter(sandbox=sandbox):
        stop(None, agent)


def decide(
    user: User, agent: Agent, call_code: str, *, allow: bool, note: str = ""
) -> ToolCall:
    """Allow or deny a call. Raises NotReady when somebody was first."""
    with transaction.atomic():
        agent = _locked(agent)
        if May.DRIVE not in access.rights(user, agent):
            raise PermissionDenied("Your role in this team does not let you decide.")
        call = ToolCall.objects.filter(agent=agent, code=call_code).first()
        if call is None:
            raise Invalid("No such call.")
        if call.state != ToolCall.State.PENDING:
            who = call.decided_by or "somebody"
            raise NotReady(f"Already decided by {who}: {call.state}.")
        _decide(call, user, allow=allow, note=note[:500])
        events.append(agent.pk, journal.told(call), run_id=call.run_id)
        run = agent.runs.filter(state=Run.State.PAUSED).order_by("-pk").first()
        if run is not None:
            go_on(agent, run)
    return call


def go_on(agent: Agent, run: Run) -> None:
    """Queue the rest of a paused run once nothing of it is undecided.

    The caller holds the agent's lock.
    """
    if agent.calls.filter(state=ToolCall.State.PENDING).exists():
        return
    Run.objects.filter(pk=run.pk).update(state=Run.State.DONE, ended_at=timezone.now())
    _queue(agent, run.author, kind=Run.Kind.APPROVAL)


def pause(user: User, agent: Agent) -> None:
    """Keep the agent from working until `resume`; a running turn is ended."""
    with transaction.atomic():
        agent = _locked(agent)
        if agent.held_at is not None:
            return
        _stop(user, agent, keep_queued=True)
        agent.held_at, agent.state = timezone.now(), Agent.State.PAUSED
        agent.save(update_fields=["held_at", "state"])
        events.append(agent.pk, Draft("state"))


def resume(user: User, agent: Agent) -> None:
    """Let a paused agent work again: what was queued, or the turn it left."""
    with transaction.atomic():
        agent = _locked(agent)
        if agent.held_at is None:
            return
        agent.held_at = None
        agent.save(update_fields=["held_at"])
        last = agent.runs.order_by("-pk").first()
        if last is not None and last.state in (Run.State.QUEUED, Run.State.RUNNING):
            set_state(agent, Agent.State(last.state))
        elif last is not None and last.state == Run.State.INTERRUPTED:
            _queue(agent, user, kind=Run.Kind.CONTINUE)
        else:
            settle(agent)


def fork(user: User, agent: Agent) -> Agent:
    """A new agent with a copy of the chat; it shares the sandbox."""
    with transaction.atomic():
        agent = _locked(agent)
        copy = Agent.objects.create(
            team_id=agent.team_id,
            owner=user,
            name=f"{agent.name[:70]} (fork)",
            sandbox_id=agent.sandbox_id,
            template=agent.template,
            mode=agent.mode,
            seq_head=agent.seq_head,
            todos=agent.todos,
            forked_from=agent,
        )
        _copy_history(agent, copy)
    return copy


def dispose(user: User, agent: Agent, *, with_sandbox: bool = False) -> None:
    """End an agent for good; its chat stays readable."""
    with transaction.atomic():
        agent = _locked(agent)
        _stop(user, agent)
        agent.queued.all().delete()
        if agent.ended_at is None:
            Agent.objects.filter(pk=agent.pk).update(ended_at=timezone.now())
            events.append(agent.pk, Draft("queue"), Draft("state"))
    if with_sandbox and agent.sandbox is not None:
        sandbox_actions.dispose(user, agent.sandbox)


def lend(run: Run) -> Sandbox:
    """The sandbox for a tool call of a run, made or resumed when it must be.

    Not yet running when it is on its way. Raises QuotaExceeded, Gone,
    RightsLost or another error of the sandbox.
    """
    agent = journal.authorise(run)
    owner, sandbox = agent.owner, agent.sandbox
    assert owner is not None  # authorise refuses an agent without one
    if sandbox is None:
        return _new_sandbox(owner, agent)
    if May.DRIVE not in access.rights(owner, sandbox):
        raise journal.RightsLost(f"sandbox {sandbox.code}")
    if sandbox.state == State.PAUSED:
        sandbox_actions.resume(owner, sandbox)
        sandbox.refresh_from_db()
    if sandbox.state in (State.KILLING, State.GONE):
        raise Gone("It has ended, and the files in it are lost.")
    if sandbox.state == State.FAILED:
        raise Gone(f"It could not be made. {sandbox.error}".strip())
    sandbox_actions.touch(sandbox)
    return sandbox


def deny_pending(user: User | None, agent: Agent) -> None:
    """Deny all that waits, since the turn ends. The caller holds the agent's lock."""
    for call in agent.calls.filter(state=ToolCall.State.PENDING):
        _decide(call, user, allow=False, note="The turn was stopped.")
        events.append(agent.pk, journal.told(call), run_id=call.run_id)


def settle(agent: Agent) -> None:
    """After a run: take the next queued message, or be idle.

    The caller holds the agent's lock.
    """
    message = agent.queued.first() if agent.is_alive and not agent.held_at else None
    if message is None:
        rests = Agent.State.PAUSED if agent.held_at else Agent.State.IDLE
        set_state(agent, rests)
        return
    message.delete()
    events.append(agent.pk, Draft("queue"))
    _say(agent, message.author, message.text)


def set_state(agent: Agent, state: Agent.State) -> None:
    """Show that the agent does something else now. The caller holds its lock."""
    agent.state = state
    Agent.objects.filter(pk=agent.pk).update(state=state, used_at=timezone.now())
    events.append(agent.pk, Draft("state"))


def _checked(prompt: str) -> str:
    prompt = prompt.replace("\r\n", "\n").strip()
    if not prompt:
        raise Invalid("Say what the agent should do.")
    if len(prompt) > MAX_PROMPT_CHARS:
        raise Invalid(f"At most {MAX_PROMPT_CHARS} characters.")
    return prompt


def _name(prompt: str) -> str:
    """The prompt's first line, cut at a word."""
    line = " ".join(prompt.splitlines()[0].split())
    if len(line) <= NAME_CHARS:
        return line
    return line[:NAME_CHARS].rsplit(" ", 1)[0] + "…"


def _locked(agent: Agent) -> Agent:
    """The agent's row as it is now, locked. Raises Gone when disposed."""
    row = Agent.objects.select_for_update().get(pk=agent.pk)
    if row.ended_at is not None:
        raise Gone("This agent was disposed.")
    return row


def _say(agent: Agent, user: User | None, text: str) -> None:
    by = user.display_name if user else "somebody"
    events.append(agent.pk, Draft("user", {"text": text, "by": by}))
    _queue(agent, user, prompt=text)


def _queue(agent: Agent, user: User | None, **fields: Any) -> None:
    Run.objects.create(agent=agent, author=user, **fields)
    set_state(agent, Agent.State.QUEUED)


def _decide(call: ToolCall, user: User | None, *, allow: bool, note: str) -> None:
    call.state = ToolCall.State.APPROVED if allow else ToolCall.State.DENIED
    call.decided_by, call.decided_at, call.note = user, timezone.now(), note
    if not allow:
        call.result = f"The person denied this call. {note}".strip()
        call.ended_at = call.decided_at
    call.save()


def _stop(user: User | None, agent: Agent, *, keep_queued: bool = False) -> None:
    """End what is under way. A running run ends in its worker, soon."""
    deny_pending(user, agent)
    now = timezone.now()
    active = agent.runs.filter(state=Run.State.RUNNING)
    if active.update(stop_asked_at=now):
        return
    waiting = [Run.State.PAUSED, *([] if keep_queued else [Run.State.QUEUED])]
    ended = agent.runs.filter(state__in=waiting)
    if ended.update(state=Run.State.INTERRUPTED, ended_at=now):
        set_state(agent, Agent.State.IDLE)


def _drop_lost_sandbox(agent: Agent) -> None:
    """Forget a sandbox that is over, so that the next call makes a new one."""
    if agent.sandbox is None or agent.sandbox.state not in (State.GONE, State.FAILED):
        return
    Agent.objects.filter(pk=agent.pk).update(sandbox=None)
    text = "The sandbox has ended and its files are lost. A new one is made at need."
    note = Draft("note", {"text": text, "tone": "warn"})
    events.append(agent.pk, note, Draft("sandbox"))


def _new_sandbox(owner: User, agent: Agent) -> Sandbox:
    """Make the agent's sandbox; a repeated call with its key finds the same."""
    mine = f"agent-{agent.code}-"
    made = Sandbox.objects.filter(team_id=agent.team_id, request_key__startswith=mine)
    over = made.filter(state__in=[State.GONE, State.FAILED]).count()
    request = sandbox_actions.CreateRequest(name=agent.name[:80])
    sandbox = sandbox_actions.create(owner, agent.team, request, key=f"{mine}{over}")
    with transaction.atomic():
        Agent.objects.filter(pk=agent.pk, sandbox=None).update(sandbox=sandbox)
        events.append(agent.pk, Draft("sandbox"))
    return sandbox


def _copy_history(agent: Agent, copy: Agent) -> None:
    """Give a fork the chat as people saw it and as the model knows it."""
    past = Run.objects.create(agent=copy, kind=Run.Kind.CONTINUE, state=Run.State.DONE)
    codes = {}
    for call in agent.calls.all():
        old, call.pk, call.code = call.code, None, secrets.token_hex(16)
        call.agent, call.run, codes[old] = copy, past, call.code
        if not call.is_over:
            call.state, call.result = ToolCall.State.SEALED, "Not run in the fork."
        call.save()
    rows = list(agent.events.exclude(type__in=events.PIECES).order_by("seq"))
    for row in rows:
        row.pk, row.agent, row.run = None, copy, None
        if "call" in row.data:
            row.data = {**row.data, "call": codes[row.data["call"]]}
    AgentEvent.objects.bulk_create(rows)
    note = {"text": f"Forked from “{agent.name}”.", "tone": "plain"}
    events.append(copy.pk, Draft("note", note))
    record = Conversation.objects.filter(code=agent.code).first()
    if record is None:
        return
    revision = secrets.token_hex(16)
    body = {
        **record.body,
        "conversation_id": copy.code,
        "deferred_tool_requests": None,
        "forked_from": agent.code,
        "forked_at": record.head,
        "branches": [],
        "revision": revision,
    }
    record.code, record.revision, record.body = copy.code, revision, body
    record.save(force_insert=True)
