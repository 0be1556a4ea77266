"""News for the list of sandboxes: that something changed, not what."""

import asyncio
import json
from datetime import datetime
from typing import Any

from channels.db import database_sync_to_async
from django.db.models import Max

from kode_web.sockets import RowSocket
from kode_web.teams import access

from .models import Sandbox
from .steps import team_group

LOOK_EVERY_S = 2.0
# A bulk action makes many changes at once.
QUIET_S = 0.2


class ListSocket(RowSocket):
    """Says when a sandbox that the person sees came, went or changed its state.

    Address: `/ws/sandboxes/`. The server sends `{"changed": true}`, once at first too;
    the page asks for its list then, filtered as it is. Nudges come through the channel
    layer; the table is looked at too, since another process's nudge may have nowhere
    to go.
    Closes like every socket: 4401, 1013.
    """

    async def joined(self) -> None:
        """Follow the groups of the person's teams."""
        self._news = asyncio.Event()
        self._groups = [
            team_group(pk)
            for pk in await database_sync_to_async(self._teams)()
            if self.channel_layer is not None
        ]
        for group in self._groups:
            await self.channel_layer.group_add(group, self.channel_name)
        self._looking = asyncio.create_task(self._look())
        self._telling = asyncio.create_task(self._tell())

    async def left(self) -> None:
        """Leave them."""
        if not hasattr(self, "_looking"):
            return
        self._looking.cancel()
        self._telling.cancel()
        for group in self._groups:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def changed(self, _message: dict[str, Any]) -> None:
        """A nudge: a sandbox of a team is new, or not what it was."""
        self._news.set()

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None
    ) -> None:
        """The browser has nothing to say here."""

    def _check_row(self) -> int:
        """There is no row: whoever is signed in has a list."""
        return 0

    def _teams(self) -> list[int]:
        return list(self.person.teams.values_list("pk", flat=True))

    def _newest(self) -> datetime | None:
        seen = access.visible(self.person, Sandbox)
        newest: datetime | None = seen.aggregate(at=Max("state_at"))["at"]
        return newest

    async def _look(self) -> None:
        newest = database_sync_to_async(self._newest)
        known = await newest()
        # What changed since the page was drawn.
        self._news.set()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if (found := await newest()) != known:
                known = found
                self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(QUIET_S)
            self._news.clear()
            if await self.is_allowed(0):
                await self.send(text_data=json.dumps({"changed": True}))
