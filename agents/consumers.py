"""The socket of an agent's page."""

import asyncio
import contextlib
import json
import logging
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from django.core.exceptions import PermissionDenied
from django.http import Http404

from kode_web.sockets import NOT_FOUND, RowSocket

from . import transcript
from .models import Agent
from .tail import SAFETY_S, tail

logger = logging.getLogger(__name__)

FAILED = 1011


class AgentConsumer(RowSocket):
    """Brings an agent's events to one browser, from its own cursor.

    Address: `/ws/agents/<code>/?since=<seq>`. The server sends
        {"seq": n, "changes": [...]}   all that happened up to event n; the
                                       changes are `transcript.Change`
    and nothing is expected from the browser: it acts by the page's forms. After
    a break it connects again with the last `seq` that it has drawn. Closes as
    `RowSocket` does.
    """

    model = Agent
    _following: asyncio.Task[None] | None = None

    async def joined(self) -> None:
        """Follow the agent from the browser's cursor."""
        self._following = asyncio.create_task(self._follow())

    async def left(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()

    async def _follow(self) -> None:
        try:
            await self._send_all(_since(self.scope["query_string"]))
        except (Http404, PermissionDenied):
            await self.close(NOT_FOUND)
        except Exception:  # the outermost frame of this task
            logger.exception("the socket of agent %s failed", self.row.code)
            await self.close(FAILED)

    async def _send_all(self, cursor: int) -> None:
        """Send what there is, wait for news, again; each read asks for the right."""
        read = database_sync_to_async(transcript.read, thread_sensitive=False)
        async with tail().watch(self.row.pk) as woken:
            while True:
                woken.clear()
                cursor, changes = await read(self.row.code, self.person, cursor)
                if changes:
                    message = {"seq": cursor, "changes": changes}
                    await self.send(text_data=json.dumps(message))
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), SAFETY_S)


def _since(query: bytes) -> int:
    value = parse_qs(query.decode("ascii", "replace")).get("since", ["0"])[0]
    return int(value) if value.isdecimal() and len(value) < 19 else 0
