"""What every socket of the dashboard shares: who is there, and a fast dispatch."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from django.http import Http404, HttpRequest

from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import Membership, User

SIGNED_OUT, REFUSED, NOT_FOUND, STALLED, GONE = 4401, 4403, 4404, 4408, 4410
TOO_BIG, TOO_MANY = 1009, 1013
MAX_MESSAGE_BYTES = 64 << 10
SOCKETS_PER_PERSON = 20
# How old an answer about rights may be: for input, and for what is only watched.
INPUT_AGE_S, WATCH_AGE_S = 2.0, 10.0
_open: Counter[int] = Counter()
_loop: asyncio.AbstractEventLoop | None = None


class RowSocket(AsyncWebsocketConsumer):
    """A socket on one row that a team owns; closes when the right to it ends.

    Rights are asked again each WATCH_AGE_S, before input, and at once when a nudge
    says that something about the person changed. Subclasses set `model`, and
    override `joined` and `left`, which is called even when the server is shutting
    down. `person` and `row` are of the last check.
    """

    model: Any = None
    person: User
    row: Any

    async def __call__(self, *arguments: Any) -> None:
        """Run; clean up whatever happens, since not every server says goodbye."""
        self._person: int | None = None
        self._checked, self._may = 0.0, frozenset[May]()
        self._watching: asyncio.Task[None] | None = None
        try:
            await super().__call__(*arguments)
        finally:
            if self._watching:
                self._watching.cancel()
            await self.left()
            if self._person is not None:
                _open[self._person] -= 1
                if self.channel_layer is not None:
                    await self.channel_layer.group_discard(
                        _group(self._person), self.channel_name
                    )

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Call the handler at once.

        The stock one visits a thread that all sockets share before each message,
        so one slow query there would hold up every keystroke.
        """
        handler: Callable[..., Awaitable[None]] | None
        handler = getattr(self, message["type"].replace(".", "_"), None)
        if handler is not None:
            await handler(message)

    async def connect(self) -> None:
        """Accept first: a browser cannot read the code of a refused handshake."""
        await self.accept()
        if not await self.is_allowed(0):
            return
        person = self.person.pk
        if _open[person] >= SOCKETS_PER_PERSON:
            await self.close(TOO_MANY)
            return
        _open[person] += 1
        self._person = person
        global _loop
        _loop = asyncio.get_running_loop()
        if self.channel_layer is not None:
            await self.channel_layer.group_add(_group(person), self.channel_name)
        self._watching = asyncio.create_task(self._watch())
        await self.joined()

    async def joined(self) -> None:
        """The person may see the row: begin."""

    async def left(self) -> None:
        """The socket is over: let go of everything."""

    async def may_changed(self) -> None:
        """What the person may do is not what it was."""

    async def rights_changed(self, _message: dict[str, Any]) -> None:
        """A nudge: something about the person is new."""
        await self.is_allowed(0)

    @property
    def may(self) -> frozenset[May]:
        """What the person could do when it was last asked."""
        return self._may

    async def is_allowed(self, age_s: float) -> bool:
        """Whether the row may still be seen; closes the socket when not."""
        if time.monotonic() - self._checked < age_s:
            return True
        before = self._may
        check = database_sync_to_async(self._check, thread_sensitive=False)
        code = await check()
        if code:
            await self.close(code)
            return False
        self._checked = time.monotonic()
        if self._person is not None and self._may != before:
            await self.may_changed()
        return True

    def _check(self) -> int:
        """The close code, 0 when all is well. Reads session and rights anew."""
        session = self.scope["session"]
        request = HttpRequest()
        # Channels hands out a lazy object, whose type is not the store's.
        request.session = session.__class__(session.session_key)
        user = get_user(request)
        if not user.is_authenticated or not user.is_active:
            return SIGNED_OUT
        self.person = user
        return self._check_row()

    def _check_row(self) -> int:
        """The close code of the row that the address names, 0 when it is seen."""
        try:
            row = access.get(
                self.person, self.model, self.scope["url_route"]["kwargs"]["code"]
            )
        except Http404:
            return NOT_FOUND
        self.row, self._may = row, access.rights(self.person, row)
        return 0

    async def _watch(self) -> None:
        await asyncio.sleep(WATCH_AGE_S)
        while await self.is_allowed(WATCH_AGE_S / 2):
            await asyncio.sleep(WATCH_AGE_S)


def ask_again(person: int) -> None:
    """Let the sockets of a person ask what he may, once this is committed.

    A nudge only: where it is lost, the next look is WATCH_AGE_S away at most.
    """

    def send() -> None:
        layer = get_channel_layer()
        if layer is None:
            return
        nudge = layer.group_send(_group(person), {"type": "rights.changed"})
        if _loop is not None and _loop.is_running():
            # A layer inside this process wakes only whom its own loop wakes.
            asyncio.run_coroutine_threadsafe(nudge, _loop)
            return

        async def awaited() -> None:
            await nudge

        with contextlib.suppress(OSError):
            async_to_sync(awaited)()

    transaction.on_commit(send)


@receiver([post_save, post_delete], sender=Membership)
def _role_changed(instance: Membership, **_: object) -> None:
    ask_again(instance.user_id)


@receiver(post_save, sender=User)
def _account_changed(instance: User, **_: object) -> None:
    ask_again(instance.pk)


@receiver(post_delete, sender=Session)
def _signed_out(instance: Session, **_: object) -> None:
    if person := instance.get_decoded().get(SESSION_KEY):
        ask_again(int(person))


def _group(person: int) -> str:
    return f"person.{person}"
