"""What a page shows, and what its socket brings."""

import asyncio

import pytest
from channels.db import database_sync_to_async as in_thread
from django.http import Http404
from django.template.loader import render_to_string

from agents import actions, transcript
from agents.models import Agent, Mode
from agents.transcript import ITEMS, Scribe

from .browser import Page
from .test_turns import start

pytestmark = pytest.mark.django_db(transaction=True)


def page(agent: Agent, user) -> tuple[int, Page]:
    """The chat as a page made now shows it, with its cursor."""
    fresh = Agent.objects.get(pk=agent.pk)
    context = Scribe(fresh, user).page()
    return context["seq"], Page(render_to_string(f"{ITEMS}#chat", context))


def follow(agent: Agent, user, cursor: int, drawn: Page) -> int:
    """Bring a page up to date, as the socket does."""
    while True:
        cursor, changes = transcript.read(agent.code, user, cursor)
        if not changes:
            return cursor
        drawn.draw(changes)


async def busy_agent(house, sandbox, script) -> Agent:
    """An agent about to do a bit of everything."""
    script.answers = [
        [("todo_write", {"todos": [{"id": "1", "title": "a", "status": "pending"}]})],
        [("bash_run", {"cmd": "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"})],
        [("fs_read", {"path": "/no/such/file"}), ("fs_write", {"path": "x"})],
        "Hmm. All **done** now, " + "word " * 40,
    ]
    return await start(house, "Go <b>on</b>", sandbox=sandbox, mode=Mode.AUTO)


async def test_every_page_becomes_the_same(house, sandbox, script, work) -> None:
    agent = await busy_agent(house, sandbox, script)
    pages = [await in_thread(page)(agent, house.bob)]
    cursor, live = await in_thread(page)(agent, house.bob)
    turn = asyncio.create_task(work())
    while not turn.done():
        await asyncio.sleep(0.05)
        pages.append(await in_thread(page)(agent, house.bob))
        cursor = await in_thread(follow)(agent, house.bob, cursor, live)
    await in_thread(follow)(agent, house.bob, cursor, live)
    _, last = await in_thread(page)(agent, house.bob)
    assert "done" in str(last.shown())
    assert "Ah, that." in str(last.shown())
    assert live.shown() == last.shown()
    assert len({cursor for cursor, _ in pages}) > 5
    for cursor, early in pages:
        await in_thread(follow)(agent, house.bob, cursor, early)
        assert early.shown() == last.shown()


async def test_what_people_write_is_text(house, script, work) -> None:
    agent = await start(house, "<script>alert(1)</script>")
    await work()
    _, drawn = await in_thread(page)(agent, house.bob)
    assert not any(element.tag == "script" for element in drawn.root.iter())
    assert "<script>alert(1)</script>" in str(drawn.shown())


async def test_only_who_may_decide_gets_the_buttons(house, script, work) -> None:
    script.answers = [[("bash_run", {"cmd": "rm -rf /\n# all"})]]
    agent = await start(house)
    await work()
    for person, buttons in ((house.bob, 2), (house.victor, 0)):
        _, drawn = await in_thread(page)(agent, person)
        assert "rm -rf / # all" in str(drawn.shown())
        assert sum(e.tag == "button" for e in drawn.root.iter()) == buttons


async def test_a_stranger_reads_nothing(house, script) -> None:
    agent = await start(house)
    with pytest.raises(Http404):
        await in_thread(transcript.read)(agent.code, house.charlie, 0)
    with pytest.raises(Http404):
        await in_thread(transcript.read)("0" * 32, house.bob, 0)


async def test_no_event_is_sent_twice(house, script, work) -> None:
    script.answers = ["One two three."]
    agent = await start(house)
    await work()
    await in_thread(actions.send)(house.bob, agent, "more")
    await work()
    cursor, changes = await in_thread(transcript.read)(agent.code, house.bob, 0)
    again = await in_thread(transcript.read)(agent.code, house.bob, cursor)
    ids = [c["id"] for c in changes if c["op"] == "put" and c["into"]]
    assert len(ids) == len(set(ids)) == 4
    assert again == (cursor, [])


async def test_a_fork_shows_what_it_was_forked_from(house, sandbox, script, work):
    agent = await busy_agent(house, sandbox, script)
    await work()
    copy = await in_thread(actions.fork)(house.bob, agent)
    _, original = await in_thread(page)(agent, house.bob)
    _, forked = await in_thread(page)(copy, house.bob)
    words = "".join(original.root.itertext()).split()
    assert "".join(forked.root.itertext()).split()[: len(words)] == words
    assert agent.name in "".join(forked.root.itertext())
