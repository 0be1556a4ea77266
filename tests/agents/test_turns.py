"""A turn of an agent, from a person's message to the last event."""

import asyncio
import inspect
import time

import pytest
from channels.db import database_sync_to_async as in_thread
from django.core.exceptions import PermissionDenied

from agents import actions, lease, tools
from agents.models import Agent, Mode, Run, ToolCall
from agents.runner import CancellationToken, run_turn
from kode_web.teams.models import Membership
from sandboxes import actions as sandbox_actions
from sandboxes import gateway
from sandboxes.errors import NotReady

from .conftest import latest_run, until

pytestmark = [pytest.mark.django_db(transaction=True)]


async def start(house, prompt="Do it", **more) -> Agent:
    return await in_thread(actions.start)(house.bob, house.team, prompt, **more)


def content(sandbox, path: str) -> str:
    return gateway.run(sandbox, f"cat {path}", timeout_s=10).stdout


def is_alive(sandbox) -> bool:
    ran = gateway.run(sandbox, "pgrep -f 'sleep 5'", user="root", timeout_s=10)
    return ran.exit_code == 0


async def seqs(agent: Agent) -> list[int]:
    return [e.seq async for e in agent.events.order_by("seq")]


async def test_an_answer_is_streamed_and_kept(house, script, work) -> None:
    script.answers = ["All **well**."]
    agent = await start(house)
    assert await work() == 1
    await agent.arefresh_from_db()
    answer = await agent.events.aget(type="answer")
    assert "<strong>well</strong>" in answer.data["html"]
    assert agent.state == Agent.State.IDLE
    assert (await seqs(agent))[-1] == agent.seq_head


async def test_the_next_turn_knows_the_last(house, script, work) -> None:
    script.answers = ["One.", "Two."]
    agent = await start(house, "first")
    await work()
    await in_thread(actions.send)(house.bob, agent, "second")
    await work()
    said = str(script.seen[-1])
    assert "first" in said
    assert "One." in said
    assert "second" in said


async def test_a_command_runs_in_auto_mode(house, sandbox, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "echo $((6*7)); exit 3"})], "Done."]
    agent = await start(house, sandbox=sandbox, mode=Mode.AUTO)
    await work()
    call = await agent.calls.aget()
    assert (call.state, call.exit_code) == (ToolCall.State.DONE, 3)
    assert call.output == "42\n"
    assert "42" in str(script.seen[-1])


async def test_an_approved_command_runs_once(house, sandbox, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "echo x >> /tmp/once"})], "Done."]
    agent = await start(house, sandbox=sandbox)
    await work()
    await agent.arefresh_from_db()
    call = await agent.calls.aget()
    assert agent.needs_you
    assert call.state == ToolCall.State.PENDING
    await in_thread(actions.decide)(house.alice, agent, call.code, allow=True)
    await work()
    await call.arefresh_from_db()
    await agent.arefresh_from_db()
    assert call.state == ToolCall.State.DONE
    assert call.decided_by_id == house.alice.pk
    assert agent.state == Agent.State.IDLE
    assert await in_thread(content)(sandbox, "/tmp/once") == "x\n"


async def test_a_denial_reaches_the_model(house, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "rm -rf /"})], "I see."]
    agent = await start(house)
    await work()
    call = await agent.calls.aget()
    decide = in_thread(actions.decide)
    await decide(house.bob, agent, call.code, allow=False, note="too much")
    await work()
    await call.arefresh_from_db()
    assert call.state == ToolCall.State.DENIED
    assert "too much" in str(script.seen[-1])
    assert call.started_at is None


async def test_a_second_decision_is_refused(house, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "true"})]]
    agent = await start(house)
    await work()
    call = await agent.calls.aget()
    decide = in_thread(actions.decide)
    await decide(house.bob, agent, call.code, allow=False)
    with pytest.raises(NotReady, match="bob"):
        await decide(house.alice, agent, call.code, allow=True)
    assert await agent.runs.acount() == 2


async def test_a_viewer_decides_nothing(house, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "true"})]]
    agent = await start(house)
    await work()
    call = await agent.calls.aget()
    with pytest.raises(PermissionDenied):
        await in_thread(actions.decide)(house.victor, agent, call.code, allow=True)


async def test_all_calls_must_be_decided(house, sandbox, script, work) -> None:
    two = [("bash_run", {"cmd": "echo 1"}), ("bash_run", {"cmd": "echo 2"})]
    script.answers = [two, "Done."]
    agent = await start(house, sandbox=sandbox)
    await work()
    first, second = [c async for c in agent.calls.order_by("pk")]
    decide = in_thread(actions.decide)
    await decide(house.bob, agent, first.code, allow=True)
    assert await work() == 0
    await decide(house.bob, agent, second.code, allow=False)
    assert await work() == 1
    states = [c.state async for c in agent.calls.order_by("pk")]
    assert states == ["done", "denied"]


async def test_stop_kills_the_command(house, sandbox, script) -> None:
    cmd = "sleep 5; echo x > /tmp/late"
    script.answers = [[("bash_run", {"cmd": cmd})]]
    agent = await start(house, sandbox=sandbox, mode=Mode.AUTO)
    [run] = await in_thread(lease.claim)("test", 1)
    token = CancellationToken()
    task = asyncio.create_task(run_turn(run, token))
    await until(agent.calls.exclude(pid=None).aexists)
    begun = time.monotonic()
    token.cancel()
    await task
    assert time.monotonic() - begun < 1
    call = await agent.calls.aget()
    assert call.state == ToolCall.State.FAILED
    assert (await latest_run(agent)).state == Run.State.INTERRUPTED
    assert not await in_thread(is_alive)(sandbox)


async def test_a_stopped_chat_goes_on(house, sandbox, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "true"})], "Fine."]
    agent = await start(house, sandbox=sandbox)
    await work()
    await in_thread(actions.stop)(house.bob, agent)
    await in_thread(actions.send)(house.bob, agent, "Something else")
    await work()
    await agent.arefresh_from_db()
    assert agent.state == Agent.State.IDLE
    assert (await latest_run(agent)).state == Run.State.DONE
    assert (await agent.calls.aget()).state == ToolCall.State.DENIED


async def test_a_message_waits_for_its_turn(house, script, work) -> None:
    script.answers = ["One.", "Two."]
    agent = await start(house)
    await in_thread(actions.send)(house.bob, agent, "And then")
    assert await agent.queued.acount() == 1
    assert await work() == 2
    assert await agent.queued.acount() == 0
    assert "And then" in str(script.seen[-1])


async def test_lost_rights_stop_the_turn(house, sandbox, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "echo x > /tmp/no"})], "Done."]
    agent = await start(house, sandbox=sandbox)
    await work()
    call = await agent.calls.aget()
    await in_thread(actions.decide)(house.alice, agent, call.code, allow=True)
    await Membership.objects.filter(user=house.bob).adelete()
    await work()
    run = await latest_run(agent)
    assert run.state == Run.State.ERROR
    assert "no longer" in run.error
    await call.arefresh_from_db()
    assert call.state == ToolCall.State.APPROVED


async def test_read_only_refuses_to_write(house, sandbox, script, work) -> None:
    script.answers = [[("fs_write", {"path": "x", "content": "y"})], "Pity."]
    agent = await start(house, sandbox=sandbox, mode=Mode.READONLY)
    await work()
    call = await agent.calls.aget()
    assert call.state == ToolCall.State.DENIED
    assert "read" in str(script.seen[-1])


async def test_files_are_written_and_read(house, sandbox, script, work) -> None:
    script.answers = [
        [
            ("fs_write", {"path": "/tmp/a.txt", "content": "one\ntwo\n"}),
            ("fs_read", {"path": "/tmp/a.txt", "offset": 2}),
        ],
        "Done.",
    ]
    agent = await start(house, sandbox=sandbox)
    await work()
    results = [c.result async for c in agent.calls.order_by("pk")]
    assert results == ["Wrote 8 bytes to /tmp/a.txt.", "two"]


async def test_todos_are_checked(house, script, work) -> None:
    todo = {"id": "1", "title": "a", "status": "in_progress"}
    script.answers = [
        [("todo_write", {"todos": [todo, {**todo, "id": "2"}]})],
        [("todo_write", {"todos": [todo]})],
        "Done.",
    ]
    agent = await start(house)
    await work()
    await agent.arefresh_from_db()
    states = [c.state async for c in agent.calls.order_by("pk")]
    assert states == ["failed", "done"]
    assert agent.todos == [todo]


async def test_a_fork_has_the_chat_of_its_own(house, script, work) -> None:
    script.answers = ["One.", "Two."]
    agent = await start(house, "remember me")
    await work()
    copy = await in_thread(actions.fork)(house.alice, agent)
    await in_thread(actions.send)(house.alice, copy, "go on")
    await work()
    assert "remember me" in str(script.seen[-1])
    assert await agent.events.filter(data__text="go on").acount() == 0
    await copy.arefresh_from_db()
    assert (await seqs(copy))[-1] == copy.seq_head


async def test_a_disposed_agent_takes_no_message(house, script, work) -> None:
    agent = await start(house)
    await in_thread(actions.dispose)(house.bob, agent)
    assert await work() == 0
    with pytest.raises(actions.Gone):
        await in_thread(actions.send)(house.bob, agent, "hello")


async def test_an_endless_loop_ends_at_its_limit(house, script, work) -> None:
    script.answers = [[("todo_read", {})]] * 20
    agent = await start(house)
    agent.template["limits"] = {"steps": 3}
    await agent.asave(update_fields=["template"])
    await work()
    run = await latest_run(agent)
    assert run.state == Run.State.ERROR
    assert "limit" in run.error
    assert len(script.seen) == 3


def test_no_tool_takes_an_id_of_a_sandbox_or_person() -> None:
    names = {
        name
        for tool in tools.Toolbox(None, None).all().values()
        for name in inspect.signature(tool).parameters
    }
    assert names == {
        *("cmd", "timeout_s", "path", "offset", "limit", "content", "todos")
    }


async def test_an_agent_makes_its_sandbox_when_needed(house, sandbox, script, work):
    script.answers = ["Hi.", [("bash_run", {"cmd": "pwd"})], "Done."]
    agent = await start(house, mode=Mode.AUTO)
    await work()
    await agent.arefresh_from_db()
    assert agent.sandbox_id is None
    await in_thread(actions.send)(house.bob, agent, "Now work")
    await work()
    made = (await Agent.objects.select_related("sandbox").aget()).sandbox
    assert made.pk != sandbox.pk
    assert made.owner_id == house.bob.pk
    assert (await agent.calls.aget()).output == "/home/user\n"
    await in_thread(gateway.kill)(made)


async def test_disposing_a_sandbox_stops_its_agents(house, sandbox, script) -> None:
    script.answers = [[("bash_run", {"cmd": "sleep 30"})]]
    agent = await start(house, sandbox=sandbox, mode=Mode.AUTO)
    [run] = await in_thread(lease.claim)("test", 1)
    token = CancellationToken()
    task = asyncio.create_task(run_turn(run, token))
    await until(agent.calls.exclude(pid=None).aexists)
    await in_thread(sandbox_actions.dispose)(house.bob, sandbox)
    assert await in_thread(lease.asked_to_stop)([run]) == {run.pk}
    token.cancel()
    await task
    assert (await latest_run(agent)).state != Run.State.RUNNING
