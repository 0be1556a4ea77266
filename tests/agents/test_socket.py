"""The socket of an agent's page."""

import asyncio
from typing import Any

import pytest
from channels.db import database_sync_to_async as in_thread
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client

from agents import actions
from agents.models import Agent
from kode_web import sockets
from kode_web.asgi import application

from .test_turns import start

pytestmark = pytest.mark.django_db(transaction=True)


async def connect(user: Any, code: str, since: int = 0) -> WebsocketCommunicator:
    """A browser's socket, signed in as the person."""
    client = Client()
    origin, host = settings.SITE_URL, settings.SITE.netloc
    headers = [(b"origin", origin.encode()), (b"host", host.encode())]
    if user is not None:
        await in_thread(client.force_login)(user)
        cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
        name = settings.SESSION_COOKIE_NAME
        headers.append((b"cookie", f"{name}={cookie}".encode()))
    path = f"/ws/agents/{code}/?since={since}"
    socket = WebsocketCommunicator(application, path, headers=headers)
    connected, _ = await socket.connect()
    assert connected
    return socket


async def read_until(socket: WebsocketCommunicator, seq: int) -> list[dict[str, Any]]:
    """All changes up to an event."""
    changes: list[dict[str, Any]] = []
    while True:
        message = await socket.receive_json_from(timeout=5)
        changes += message["changes"]
        if message["seq"] >= seq:
            return changes


async def closing_code(socket: WebsocketCommunicator) -> int:
    async with asyncio.timeout(10):
        while True:
            message = await socket.receive_output(timeout=5)
            if message["type"] == "websocket.close":
                return message["code"]


async def head(agent: Agent) -> int:
    await agent.arefresh_from_db()
    return agent.seq_head


async def test_a_turn_is_followed_live(house, script, work) -> None:
    script.answers = ["Hello there."]
    agent = await start(house)
    socket = await connect(house.victor, agent.code)
    await read_until(socket, await head(agent))
    await work()
    changes = await read_until(socket, await head(agent))
    words = "".join(c["d"] for c in changes if c["op"] == "text")
    assert words.strip() in ("Hello there.", "")
    assert any("Hello there." in c.get("html", "") for c in changes)
    await socket.disconnect()


async def test_a_browser_goes_on_from_its_cursor(house, script, work) -> None:
    agent = await start(house, "first")
    await work()
    since = await head(agent)
    await in_thread(actions.send)(house.bob, agent, "second")
    socket = await connect(house.bob, agent.code, since)
    changes = await read_until(socket, await head(agent))
    assert "second" in str(changes)
    assert "first" not in str([c for c in changes if c.get("into") == "chat"])
    await socket.disconnect()


async def test_a_stranger_equals_missing(house, script) -> None:
    agent = await start(house)
    for user, code in ((house.charlie, agent.code), (house.bob, "0" * 32)):
        socket = await connect(user, code)
        assert await closing_code(socket) == 4404


async def test_nobody_signed_in_is_told_so(house, script) -> None:
    agent = await start(house)
    socket = await connect(None, agent.code)
    assert await closing_code(socket) == 4401


async def test_who_leaves_the_team_is_shut_out(house, script) -> None:
    agent = await start(house)
    socket = await connect(house.victor, agent.code)
    await read_until(socket, await head(agent))
    await house.victor.memberships.all().adelete()
    await in_thread(actions.send)(house.bob, agent, "secret")
    assert await closing_code(socket) == 4404


async def test_who_signs_out_is_shut_out(house, script, monkeypatch) -> None:
    monkeypatch.setattr(sockets, "WATCH_AGE_S", 0.2)
    agent = await start(house)
    socket = await connect(house.victor, agent.code)
    await read_until(socket, await head(agent))
    await Session.objects.all().adelete()
    assert await closing_code(socket) == 4401
