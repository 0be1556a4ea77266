"""The socket of an agent's page."""

import asyncio
import contextlib
import json
import logging
import time
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from kode_web.teams import access
from kode_web.teams.access import Person

from . import transcript
from .models import Agent
from .tail import SAFETY_S, tail

logger = logging.getLogger(__name__)

# How soon a person who signed out, or was shut out, is noticed.
RECHECK_S = 10.0
SIGNED_OUT, NOT_FOUND, FAILED = 4401, 4404, 1011


class AgentConsumer(AsyncWebsocketConsumer):
    """Brings an agent's events to one browser, from its own cursor.

    Address: `/ws/agents/<code>/?since=<seq>`. The server sends
        {"seq": n, "changes": [...]}   all that happened up to event n; the
                                       changes are `transcript.Change`
    and nothing is expected from the browser: it acts by the page's forms. After
    a break it connects again with the last `seq` that it has drawn. Closes with
    4401 when signed out, 4404 when there is no such agent for this person.
    """

    async def connect(self) -> None:
        """Accept first: a browser cannot read the code of a refused handshake."""
        self._following: asyncio.Task[None] | None = None
        await self.accept()
        self._following = asyncio.create_task(self._follow())

    async def disconnect(self, code: int) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """Nothing is expected; what comes is dropped."""

    async def _follow(self) -> None:
        try:
            await self._send_all()
        except PermissionDenied:
            await self.close(SIGNED_OUT)
        except Http404:
            await self.close(NOT_FOUND)
        except Exception:  # the outermost frame of this task
            logger.exception("the socket of an agent failed")
            await self.close(FAILED)

    async def _send_all(self) -> None:
        """Send what there is, wait for news, and look again at the rights."""
        person = await database_sync_to_async(person_of)(self.scope)
        code = self.scope["url_route"]["kwargs"]["code"]
        cursor = _since(self.scope["query_string"])
        agent_id = await database_sync_to_async(_id_of)(code, person)
        checked = time.monotonic()
        async with tail().watch(agent_id) as woken:
            while True:
                if time.monotonic() - checked > RECHECK_S:
                    person = await database_sync_to_async(person_of)(self.scope)
                    checked = time.monotonic()
                read = database_sync_to_async(transcript.read)
                woken.clear()
                cursor, changes = await read(code, person, cursor)
                if changes:
                    message = {"seq": cursor, "changes": changes}
                    await self.send(text_data=json.dumps(message))
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), SAFETY_S)


def person_of(scope: Any) -> Person:
    """Whose socket it is by its session as stored now. Raises PermissionDenied."""
    session = scope["session"]
    request = HttpRequest()
    request.session = session.__class__(session.session_key)
    user = get_user(request)
    if isinstance(user, AnonymousUser) or not user.is_active:
        raise PermissionDenied
    return user


def _id_of(code: str, person: Person) -> int:
    """The agent's key. Raises Http404."""
    return access.get(person, Agent, code).pk


def _since(query: bytes) -> int:
    value = parse_qs(query.decode("ascii", "replace")).get("since", ["0"])[0]
    return int(value) if value.isdecimal() and len(value) < 19 else 0
