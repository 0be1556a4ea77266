"""Who works on a run, and what a worker that lost it can still do: nothing."""

from datetime import timedelta

import pytest
from channels.db import database_sync_to_async as in_thread
from django.utils import timezone
from pydantic_ai.conversation import Conversation

from agents import actions, events, journal, lease
from agents.events import Draft, Lost, Writer
from agents.models import Agent, Run
from agents.runner import run_turn
from agents.store import Store

from .test_turns import start

pytestmark = pytest.mark.django_db(transaction=True)


def begin(house, text: str = "Do it") -> Agent:
    return actions.start(house.bob, house.team, text)


def lost_run(house) -> Run:
    """A run as the worker sees it that stalled for too long."""
    agent = begin(house)
    [run] = lease.claim("first", 5)
    Run.objects.filter(pk=run.pk).update(lease_until=timezone.now())
    assert [r.pk for r in lease.claim("second", 5)] == [run.pk]
    assert agent.runs.get().attempt == 2
    return run


def test_a_run_is_claimed_once(house) -> None:
    begin(house)
    [run] = lease.claim("first", 5)
    assert lease.claim("second", 5) == []
    left = run.lease_until - timezone.now()
    assert timedelta(seconds=25) < left <= timedelta(seconds=31)


def test_a_renewed_lease_holds(house) -> None:
    begin(house)
    [run] = lease.claim("first", 5)
    Run.objects.update(lease_until=timezone.now())
    assert lease.renew([run]) == []
    assert lease.claim("second", 5) == []


def test_a_lost_run_cannot_be_renewed(house) -> None:
    run = lost_run(house)
    assert lease.renew([run]) == [run]


def test_a_lost_run_can_append_nothing(house) -> None:
    run = lost_run(house)
    head = Agent.objects.get().seq_head
    with pytest.raises(Lost):
        events.append_fenced(run, [Draft("note", {"text": "x", "tone": "plain"})])
    assert Agent.objects.get().seq_head == head


def test_a_lost_run_can_begin_no_call(house) -> None:
    run = lost_run(house)
    asked = journal.Asked(name="bash_run", args={"cmd": "x"}, call_id="c", step=1)
    with pytest.raises(Lost):
        journal.begin(run, asked)


def test_a_lost_run_cannot_be_finished(house) -> None:
    run = lost_run(house)
    with pytest.raises(Lost):
        lease.finish(run, Run.State.DONE)
    assert Run.objects.get().state == Run.State.RUNNING


async def test_a_lost_run_cannot_save(house) -> None:
    run = await in_thread(lost_run)(house)
    code = (await Agent.objects.aget()).code
    with pytest.raises(Lost):
        await Store(run).save(Conversation(conversation_id=code))


async def test_a_lost_turn_ends_quietly(house, script) -> None:
    run = await in_thread(lost_run)(house)
    await run_turn(run)
    assert script.seen == []


def test_a_released_run_is_taken_at_once(house) -> None:
    begin(house)
    [run] = lease.claim("first", 5)
    lease.release(run)
    assert [r.pk for r in lease.claim("second", 5)] == [run.pk]


def test_a_team_at_its_limit_waits(house, settings) -> None:
    settings.MAX_RUNNING_AGENTS = 1
    begin(house, "one")
    begin(house, "two")
    [run] = lease.claim("worker", 5)
    assert lease.claim("worker", 5) == []
    lease.finish(run, Run.State.DONE)
    assert len(lease.claim("worker", 5)) == 1


def test_a_held_agent_is_not_claimed(house) -> None:
    agent = begin(house)
    actions.pause(house.bob, agent)
    assert lease.claim("worker", 5) == []
    actions.resume(house.bob, agent)
    assert len(lease.claim("worker", 5)) == 1


def test_a_given_up_answer_is_closed(house) -> None:
    begin(house)
    [run] = lease.claim("worker", 5)
    step = {"step": f"{run.pk}-1", "model": "test:x"}
    text = {"step": step["step"], "at": 0, "d": "half an"}
    events.append_fenced(run, [Draft("step", step), Draft("text", text)])
    lease.finish(run, Run.State.ERROR, error="given up")
    answer = run.agent.events.get(type="answer")
    assert (answer.data["text"], answer.data["cut"]) == ("half an", True)
    assert not run.agent.events.filter(type="text").exists()


async def test_pieces_of_text_become_one_row(house) -> None:
    agent = await start(house)
    [run] = await in_thread(lease.claim)("worker", 5)
    writer = Writer(run)
    for at, word in ((0, "one "), (4, "two ")):
        writer.put("text", step="1-1", at=at, d=word)
    writer.put("text", step="1-2", at=0, d="three")
    await writer.close()
    rows = [e.data["d"] async for e in agent.events.filter(type="text")]
    assert sorted(rows) == ["one two ", "three"]
