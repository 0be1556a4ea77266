"""A browser's end of a terminal socket, as tests hold it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.test import Client

from kode_web.asgi import application
from sandboxes.models import Sandbox

WAIT_S = 20


class Socket:
    """A browser's end of a terminal socket."""

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self.communicator = communicator
        self.output = bytearray()
        self.controls: list[dict[str, Any]] = []
        self.offset = 0
        self.acks = True

    async def step(self) -> dict[str, Any]:
        """The next event, noted."""
        event = await self.communicator.receive_output(WAIT_S)
        if event["type"] == "websocket.send" and event.get("bytes") is not None:
            self.output += event["bytes"]
            self.offset += len(event["bytes"])
            if self.acks:
                await self.control({"ack": self.offset})
        elif event["type"] == "websocket.send":
            message = json.loads(event["text"])
            self.controls.append(message)
            self.offset = message.get("start", self.offset)
        return event

    async def until(self, text: bytes) -> bytes:
        """Read until the output holds the text."""
        seen = 0
        while self.output.find(text, max(0, seen - len(text))) < 0:
            seen = len(self.output)
            await self.step()
        return bytes(self.output)

    async def until_control(self, name: str) -> dict[str, Any]:
        """Read until a control frame has the name."""
        return await self.until_control_that(lambda control: name in control)

    async def until_control_that(
        self, wanted: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """Read until a control frame is as wanted."""
        while not any(map(wanted, self.controls)):
            await self.step()
        return next(filter(wanted, self.controls))

    async def until_closed(self) -> int:
        """Read to the close; its code."""
        while (event := await self.step())["type"] != "websocket.close":
            continue
        return event["code"]

    async def type(self, text: str) -> None:
        await self.communicator.send_to(bytes_data=text.encode())

    async def control(self, message: Any) -> None:
        await self.communicator.send_to(text_data=json.dumps(message))


def session_of(user) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


@asynccontextmanager
async def open_socket(
    user, sandbox: Sandbox, terminal: str, query: str = ""
) -> AsyncIterator[Socket]:
    headers = [(b"host", settings.SITE.netloc.encode())]
    headers.append((b"origin", settings.SITE_URL.encode()))
    if user is not None:
        key = await database_sync_to_async(session_of)(user)
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode()))
    path = f"/ws/sandboxes/{sandbox.code}/terminals/{terminal}/{query}"
    communicator = WebsocketCommunicator(application, path, headers)
    accepted, _ = await communicator.connect(WAIT_S)
    assert accepted
    try:
        yield Socket(communicator)
    finally:
        await communicator.disconnect()
