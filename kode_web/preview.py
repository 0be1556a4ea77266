"""The preview proxy: ports of sandboxes on a site of their own.

An ASGI application for hosts `<port>-<code>.<KODE_PREVIEW_DOMAIN>`. A click on the
dashboard makes a code that works once within a minute; the preview host swaps it
for a cookie of its own, bound to the person's session, the sandbox and the port.
Neither reaches the sandbox, and nothing of the dashboard is served here.
"""

import asyncio
import functools
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core import signing
from django.core.cache import cache
from django.http import Http404, HttpRequest
from django.template.loader import render_to_string

from kode_web.preview_headers import for_browser, for_sandbox
from kode_web.preview_sockets import relay_socket
from kode_web.teams import access
from sandboxes import gateway
from sandboxes.errors import SandboxError
from sandboxes.models import Sandbox

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HOST = re.compile(r"(\d{4,5})-([0-9a-f]{32})")
HIDDEN_PORTS = frozenset({49983})
ENTER = "/.kode/enter"
CODE_LIFE_S = 60
COOKIE_LIFE_S = 3600
RECHECK_S = 5.0
SALT = "kode.preview"


@dataclass(frozen=True)
class Place:
    """A port of a sandbox, as a preview host names it."""

    code: str
    port: int


def cookie_name() -> str:
    """`__Host-` keeps it to one host, wherever cookies may be Secure."""
    return "__Host-kode-preview" if settings.SECURE_COOKIES else "kode-preview"


def place_of(host: str) -> Place | None:
    """What a host stands for; None for any host that is not exactly one of ours."""
    label, dot, domain = host.partition(".")
    found = HOST.fullmatch(label)
    if not dot or domain != settings.PREVIEW_DOMAIN or found is None:
        return None
    port = int(found[1])
    if not 1024 <= port <= 65535 or port in HIDDEN_PORTS or found[1][0] == "0":
        return None
    return Place(found[2], port)


def open_code(request: HttpRequest, sandbox: Sandbox, port: int) -> str:
    """The address that lets this person's browser in, once, within a minute.

    The caller has checked the right to the sandbox.
    """
    code = secrets.token_urlsafe(32)
    value = [request.session.session_key, sandbox.code, port]
    cache.set(_key(code), value, CODE_LIFE_S)
    return f"{settings.SITE.scheme}://{sandbox.preview_host(port)}{ENTER}?code={code}"


def _key(code: str) -> str:
    return f"preview:{hashlib.sha256(code.encode()).hexdigest()}"


def _swap(code: str, place: Place) -> str | None:
    """The cookie for a code that is good here; the code is spent by it."""
    value = cache.get(_key(code))
    if value is None or not cache.delete(_key(code)):
        return None
    if value[1:] != [place.code, place.port]:
        return None
    return signing.dumps(value, salt=SALT)


def _allowed(cookie: str, place: Place) -> Sandbox | None:
    """The running sandbox, if the cookie's session may see this place now."""
    try:
        session_key, code, port = signing.loads(
            cookie, salt=SALT, max_age=COOKIE_LIFE_S
        )
    except (signing.BadSignature, ValueError):
        return None
    if (code, port) != (place.code, place.port):
        return None
    request = HttpRequest()
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(session_key)
    try:
        return access.get(get_user(request), Sandbox, place.code)
    except Http404:
        return None


_known: dict[tuple[str, Place], tuple[float, Sandbox | None]] = {}


async def allowed(cookie: str, place: Place) -> Sandbox | None:
    """As above; an answer is kept for two seconds, since a page asks a lot."""
    kept = _known.get((cookie, place))
    if kept and time.monotonic() - kept[0] < 2:
        return kept[1]
    sandbox = await database_sync_to_async(_allowed)(cookie, place)
    if len(_known) > 1000:
        _known.clear()
    _known[cookie, place] = (time.monotonic(), sandbox)
    return sandbox


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer on a preview host."""
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
    place = place_of(headers.get("host", ""))
    if place is None:
        await refuse(scope, send, 404, "There is no preview at this address.")
        return
    if scope["type"] == "http" and scope["path"] == ENTER:
        await _enter(scope, send, place)
        return
    cookie = _cookie(headers.get("cookie", ""))
    sandbox = await allowed(cookie, place) if cookie else None
    if sandbox is None:
        text = "Open this preview from the sandbox's Ports page."
        await refuse(scope, send, 403, text)
        return
    socket_relay = functools.partial(relay_socket, cookie_name=cookie_name())
    relay = _relay if scope["type"] == "http" else socket_relay
    try:
        target = await database_sync_to_async(gateway.target)(sandbox, place.port)
    except SandboxError as error:
        await refuse(scope, send, error.status, str(error))
        return
    working = asyncio.ensure_future(relay(scope, receive, send, target))
    watching = asyncio.ensure_future(_until_refused(cookie, place))
    await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    for task in (working, watching):
        task.cancel()
    await asyncio.gather(working, watching, return_exceptions=True)
    if not working.cancelled() and (problem := working.exception()):
        raise problem


async def _until_refused(cookie: str, place: Place) -> None:
    """Return once the right is gone: a stream must not outlive it."""
    while await allowed(cookie, place):
        await asyncio.sleep(RECHECK_S)


async def _enter(scope: Scope, send: Send, place: Place) -> None:
    """Swap the code for the cookie and go to the preview's front page."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    code = query.get("code", [""])[0]
    cookie = await database_sync_to_async(_swap)(code, place)
    if cookie is None:
        text = "This link was used or is over. Open it again from the Ports page."
        await refuse(scope, send, 403, text)
        return
    secure = "; Secure" if settings.SECURE_COOKIES else ""
    value = (
        f"{cookie_name()}={cookie}; Path=/; HttpOnly; SameSite=Lax; "
        f"Max-Age={COOKIE_LIFE_S}{secure}"
    )
    headers = [(b"location", b"/"), (b"set-cookie", value.encode())]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(cookie_name())
    except CookieError:
        return ""
    return morsel.value if morsel else ""


async def refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    """A small page that says what to do, or a refused socket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403})
        return
    context = {"text": text, "site_url": settings.SITE_URL, "status": status}
    body = render_to_string("preview_refused.html", context).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_client: httpx.AsyncClient | None = None


def client() -> httpx.AsyncClient:
    """One pool of connections; a preview may stream for hours."""
    global _client
    if _client is None or _client.is_closed:
        _client = httpx.AsyncClient(
            timeout=httpx.Timeout(10, read=None, write=None, pool=10),
            limits=httpx.Limits(max_connections=500),
            follow_redirects=False,
            trust_env=False,
        )
    return _client


async def _relay(
    scope: Scope, receive: Receive, send: Send, target: gateway.Target
) -> None:
    """Pass a request on and stream the answer back."""
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    raw = scope.get("raw_path") or scope["path"].encode()
    url = target.url + raw.decode("latin-1") + (f"?{query}" if query else "")
    headers = for_sandbox(scope["headers"], target.headers, host, cookie_name())
    gone = asyncio.Event()
    request = client().build_request(
        scope["method"],
        url,
        headers=headers,
        content=_body(receive, gone) if _has_body(scope) else None,
    )
    try:
        response = await client().send(request, stream=True)
    except httpx.HTTPError:
        await refuse(scope, send, 502, "The sandbox does not answer. Try again.")
        return
    leaving = asyncio.ensure_future(_left(receive, gone))
    try:
        upstream = urlsplit(target.url).hostname or ""
        names = {upstream, target.headers["host"].partition(":")[0]}
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": for_browser(response.headers.raw, names, cookie_name()),
        }
        await send(start)
        sending = asyncio.ensure_future(_pour(response, send))
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    finally:
        leaving.cancel()
        await response.aclose()


async def _pour(response: httpx.Response, send: Send) -> None:
    async for piece in response.aiter_raw():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _has_body(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return bool(names & {b"content-length", b"transfer-encoding"})


async def _body(receive: Receive, gone: asyncio.Event) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            gone.set()
            return
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _left(receive: Receive, gone: asyncio.Event) -> None:
    """Return when the browser goes away."""
    if gone.is_set():
        return
    while (await receive())["type"] != "http.disconnect":
        continue
