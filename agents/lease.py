"""Who works on which run: a lease on the run's row, kept in the database's time.

A run whose lease has expired is claimed by the next worker that looks. Each
claim raises `attempt`, the fence of everything a worker writes. A worker that
stops in order gives its runs back at once.
"""

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import (
    DateTimeField,
    ExpressionWrapper,
    F,
    Q,
    QuerySet,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import Now
from django.utils import timezone

from kode_web.teams import quotas
from sandboxes import markdown

from . import actions, events, journal
from .events import Draft
from .models import Agent, Run, ToolCall

logger = logging.getLogger(__name__)

# Longer than any stall of a worker's event loop.
LEASE = timedelta(seconds=30)
RENEW_S = 10
# A turn that takes its worker down again and again is given up.
MAX_ATTEMPTS = 5


def _lease_end() -> Combinable:
    return ExpressionWrapper(Now() + LEASE, output_field=DateTimeField())


def claim(worker: str, room: int) -> list[Run]:
    """Take up to `room` runs: abandoned ones first, then those that wait longest.

    A team at its limit of running agents has to wait.
    """
    expired = Q(state=Run.State.RUNNING, lease_until__lt=Now())
    ready = Q(state=Run.State.QUEUED, agent__held_at=None)
    found = (
        Run.objects.filter(expired | ready)
        .select_related("agent__team")
        # "running" comes after "queued" in the alphabet.
        .order_by("-state", "created_at")
    )
    taken: list[Run] = []
    for run in found[: 4 * room]:
        if len(taken) >= room:
            break
        if _claim_one(run, worker):
            run.refresh_from_db()
            taken.append(run)
    return taken


def _claim_one(run: Run, worker: str) -> bool:
    if run.state == Run.State.RUNNING:
        return _take(run, worker)
    team = run.agent.team
    try:
        quotas.reserve(
            team,
            what="running agents",
            holding=lambda: Agent.objects.filter(
                team=team, runs__state=Run.State.RUNNING
            ),
            limit=settings.MAX_RUNNING_AGENTS,
            make=lambda: _take_or_fail(run, worker),
        )
    except (quotas.QuotaExceeded, events.Lost):
        return False
    return True


def _take_or_fail(run: Run, worker: str) -> Agent:
    if not _take(run, worker):
        raise events.Lost(f"run {run.pk}")
    return run.agent


def _take(run: Run, worker: str) -> bool:
    """Compare-and-set: the run is as it was seen, and now this worker's."""
    with transaction.atomic():
        Agent.objects.select_for_update().only("pk").get(pk=run.agent_id)
        rows = Run.objects.filter(pk=run.pk, state=run.state, attempt=run.attempt)
        if run.state == Run.State.RUNNING:
            rows = rows.filter(lease_until__lt=Now())
        changed = rows.update(
            state=Run.State.RUNNING,
            worker=worker,
            attempt=F("attempt") + 1,
            lease_until=_lease_end(),
            started_at=run.started_at or timezone.now(),
        )
        if changed and run.state == Run.State.QUEUED:
            Agent.objects.filter(pk=run.agent_id).update(state=Agent.State.RUNNING)
            events.append(run.agent_id, Draft("state"))
    return changed == 1


def _mine(run: Run) -> QuerySet[Run]:
    return Run.objects.filter(pk=run.pk, attempt=run.attempt, state=Run.State.RUNNING)


def renew(runs: list[Run]) -> list[Run]:
    """Extend the leases; returns the runs that are no longer this worker's."""
    return [run for run in runs if not _mine(run).update(lease_until=_lease_end())]


def asked_to_stop(runs: list[Run]) -> set[int]:
    """Primary keys of those that a person wants to end."""
    return set(
        Run.objects.filter(pk__in=[run.pk for run in runs])
        .exclude(stop_asked_at=None)
        .values_list("pk", flat=True)
    )


def release(run: Run) -> None:
    """Give a run back unfinished: the next worker may claim it at once."""
    _mine(run).update(lease_until=timezone.now() - LEASE, worker="")


def finish(run: Run, state: Run.State, *, error: str = "") -> None:
    """End a run and settle its agent. Raises Lost."""
    with transaction.atomic():
        stops = events.hold(run).stop_asked_at is not None
        agent = Agent.objects.get(pk=run.agent_id)
        if state == Run.State.PAUSED and stops:
            state = Run.State.INTERRUPTED
            actions.deny_pending(None, agent)
        ended_at = None if state == Run.State.PAUSED else timezone.now()
        for call in agent.calls.filter(state=ToolCall.State.EXECUTING):
            journal.finish(run, call, journal.STOPPED, failed=True)
        _mine(run).update(
            state=state, error=error[:500], ended_at=ended_at, lease_until=None
        )
        _close_step(agent, run)
        agent.events.filter(run=run, type__in=events.PIECES).delete()
        if error:
            note = Draft("note", {"text": error, "tone": "bad"})
            events.append(agent.pk, note, run_id=run.pk)
        _settle(agent, run, state)


def _close_step(agent: Agent, run: Run) -> None:
    """Close an answer that no worker came to close, with what there is of it."""
    steps = agent.events.filter(run=run, type__in=["step", "answer"])
    last = steps.order_by("-seq").first()
    if last is None or last.type == "answer":
        return
    pieces = agent.events.filter(run=run, type="text", seq__gt=last.seq)
    text = "".join(event.data["d"] for event in pieces.order_by("seq"))
    html = markdown.render(text)
    answer = {**last.data, "text": text, "thought": "", "html": html, "cut": True}
    events.append(agent.pk, Draft("answer", answer), run_id=run.pk)


def _settle(agent: Agent, run: Run, state: Run.State) -> None:
    """What the agent does after the run; its row is locked."""
    match state:
        case Run.State.DONE:
            actions.settle(agent)
        case Run.State.PAUSED:
            actions.set_state(agent, Agent.State.PAUSED)
            actions.go_on(agent, run)
        case Run.State.ERROR:
            actions.set_state(agent, Agent.State.ERROR)
        case _:
            rests = Agent.State.PAUSED if agent.held_at else Agent.State.IDLE
            actions.set_state(agent, rests)
