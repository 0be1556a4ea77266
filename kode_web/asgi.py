"""The ASGI application: dispatches by host before Django sees a request.

The dashboard's host reaches Django and the sockets, preview hosts reach the
preview proxy, and any other host nothing. Bodies are counted on the way in.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http.request import split_domain_port, validate_host

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kode_web.settings")
http = get_asgi_application()

from agents.routing import urlpatterns as agent_sockets  # noqa: E402  apps must be ready
from kode_web import checks, preview, preview_http  # noqa: E402
from sandboxes import steps  # noqa: E402
from sandboxes.routing import urlpatterns as sandbox_sockets  # noqa: E402

checks.refuse()

type Scope = MutableMapping[str, Any]
type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]

# Only a proxy may say these, and only one that the settings trust.
PROXY_HEADERS = (b"x-forwarded-", b"forwarded", b"x-real-ip", b"daphne-root-path")

TOO_LARGE = b"This upload is larger than the limit."
# Where files come in; nothing else has a reason to be large.
UPLOADS = re.compile(r"/sandboxes/[0-9a-f]{32}/(files|uploads)/")

# Its own types of scope and message are narrower than what a server hands over.
dashboard: Any = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": OriginValidator(
            AuthMiddlewareStack(URLRouter([*sandbox_sockets, *agent_sockets])),
            [settings.SITE_URL],
        ),
    }
)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request or socket."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    steps.serve_from(asyncio.get_running_loop())
    scope = dict(scope)
    if not settings.TRUST_PROXY:
        scope["headers"] = [
            pair
            for pair in scope["headers"]
            if not pair[0].lower().startswith(PROXY_HEADERS)
        ]
    scope["root_path"] = ""
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
    if host.endswith(f".{settings.PREVIEW_DOMAIN}"):
        await preview.application(scope, receive, send)
    elif validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
        await _capped(scope, receive, send)
    else:
        await _refuse(scope, send, 400, b"There is nothing at this address.")


async def _capped(scope: Scope, receive: Receive, send: Send) -> None:
    """The dashboard, with bodies that are counted: 413 above the limit."""
    if scope["type"] != "http":
        await dashboard(scope, receive, send)
        return
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if UPLOADS.match(scope["path"]):
        limit = settings.MAX_UPLOAD_BYTES
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or int(length) > limit:
        await _refuse(scope, send, 413, TOO_LARGE)
        return
    taken, is_started = 0, False

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        # Django treats a vanished client as the end, and keeps nothing of it.
        return {"type": "http.disconnect"} if taken > limit else message

    async def watched(message: Message) -> None:
        nonlocal is_started
        is_started = True
        await send(message)

    await dashboard(scope, counted, watched)
    if taken > limit and not is_started:
        await _refuse(scope, send, 413, TOO_LARGE)


async def _refuse(scope: Scope, send: Send, status: int, text: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4404})
        return
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        # What is left of the body is not worth reading.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await preview_http.close()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
