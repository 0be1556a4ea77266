"""The list's socket: it says that something changed, to those who may see it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model

from kode_web.asgi import application
from sandboxes import list_sockets, steps
from sandboxes.models import Sandbox, State

from .sockets import WAIT_S, session_of

pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def follow(user) -> AsyncIterator[WebsocketCommunicator]:
    headers = [(b"host", settings.SITE.netloc.encode())]
    headers.append((b"origin", settings.SITE_URL.encode()))
    if user is not None:
        key = await database_sync_to_async(session_of)(user)
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode()))
    socket = WebsocketCommunicator(application, "/ws/sandboxes/", headers)
    accepted, _ = await socket.connect(WAIT_S)
    assert accepted
    try:
        yield socket
    finally:
        await socket.disconnect()


@pytest.fixture
def row(house) -> Sandbox:
    return Sandbox.objects.create(
        team=house.team, name="x", backend="local", request_key="k", state=State.PAUSED
    )


def move(row: Sandbox) -> None:
    assert steps.step(row, (State.PAUSED,), State.RUNNING, "sandbox.resumed")


def move_quietly(row: Sandbox) -> None:
    """As another process does it: without a nudge that reaches this one."""
    assert Sandbox.objects.move(row.pk, State.PAUSED, State.RUNNING)


@pytest.mark.parametrize("change", [move, move_quietly])
async def test_a_change_is_told(house, row, change, monkeypatch) -> None:
    monkeypatch.setattr(list_sockets, "LOOK_EVERY_S", 0.2)
    async with follow(house.victor) as socket:
        # Once at first: from now on it knows what there is.
        assert json.loads(await socket.receive_from(WAIT_S)) == {"changed": True}
        await database_sync_to_async(change)(row)
        assert json.loads(await socket.receive_from(WAIT_S)) == {"changed": True}


async def test_a_stranger_hears_nothing(house, row, monkeypatch) -> None:
    monkeypatch.setattr(list_sockets, "LOOK_EVERY_S", 0.2)
    async with follow(house.charlie) as socket:
        await socket.receive_from(WAIT_S)
        await database_sync_to_async(move)(row)
        assert await socket.receive_nothing(1.0)


async def test_who_is_not_signed_in_is_turned_away(house) -> None:
    async with follow(None) as socket:
        event = await socket.receive_output(WAIT_S)
        assert (event["type"], event["code"]) == ("websocket.close", 4401)


async def test_an_account_that_is_closed_is_turned_away(house, row) -> None:
    async with follow(house.bob) as socket:
        await socket.receive_from(WAIT_S)
        users = get_user_model().objects.filter(pk=house.bob.pk)
        await users.aupdate(is_active=False)
        await database_sync_to_async(move)(row)
        event = await socket.receive_output(WAIT_S)
        assert (event["type"], event["code"]) == ("websocket.close", 4401)
