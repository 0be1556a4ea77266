"""The ASGI application: dispatches by host before Django sees a request.

The dashboard's host reaches Django and the sockets, preview hosts reach the
preview proxy, and any other host nothing. Bodies are counted on the way in.
"""

import os
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

from sandboxes.routing import urlpatterns as sandbox_sockets  # noqa: E402

from agents.routing import urlpatterns as agent_sockets  # noqa: E402  apps must be ready
from kode_web import preview  # noqa: E402

type Scope = MutableMapping[str, Any]
type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]

# Only a proxy may say these, and only one that the settings trust.
PROXY_HEADERS = (b"x-forwarded-", b"forwarded", b"x-real-ip", b"daphne-root-path")

dashboard = ProtocolTypeRouter(
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
    """The dashboard, with a body of at most MAX_UPLOAD_BYTES."""
    if scope["type"] != "http":
        await dashboard(scope, receive, send)
        return
    limit = settings.MAX_UPLOAD_BYTES
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or int(length) > limit:
        await _refuse(scope, send, 413, b"This upload is larger than the limit.")
        return
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        # Django treats a vanished client as the end: nothing is kept of it.
        return {"type": "http.disconnect"} if taken > limit else message

    await dashboard(scope, counted, send)


async def _refuse(scope: Scope, send: Send, status: int, text: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4404})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text + b"\n"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
