"""The preview proxy: ports of sandboxes on a site of their own.

An ASGI application for hosts `<port>-<code>.<KODE_PREVIEW_DOMAIN>`. A click on the
dashboard makes a code that works once within a minute; the preview host swaps it
for a cookie of its own, bound to the person's session, the sandbox and the port.
Neither reaches the sandbox, and nothing of the dashboard is served here.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import partial
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest
from django.template.loader import render_to_string

from kode_web import preview_public
from kode_web.preview_http import NoAnswer, relay_request
from kode_web.preview_sockets import relay_socket
from kode_web.teams import access, secrets
from sandboxes import gateway, port_rights
from sandboxes.errors import SandboxError
from sandboxes.models import Sandbox

type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HOST = re.compile(r"([0-9]{4,5})-([0-9a-f]{32})")
ENTER = "/.kode/enter"
CODE_LIFE_S = 60
COOKIE_LIFE_S = 3600
# How old an answer about rights may be, and how often a stream asks again.
KNOWN_S, RECHECK_S = 2.0, 5.0


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
    if not port_rights.can_open(port) or found[1][0] == "0":
        return None
    return Place(found[2], port)


def open_code(
    request: HttpRequest, sandbox: Sandbox, port: int, *, embed: bool = False
) -> str:
    """The address that lets this person's browser in, once, within a minute.

    `embed` is for a frame on the dashboard. The caller has checked the right to it.
    """
    code = token_urlsafe(32)
    value = [request.session.session_key, sandbox.code, port]
    cache.set(_key(code), value, CODE_LIFE_S)
    host = f"{settings.SITE.scheme}://{sandbox.preview_host(port)}"
    return f"{host}{ENTER}?code={code}{'&embed=1' if embed else ''}"


def _key(code: str) -> str:
    return f"preview:{hashlib.sha256(code.encode()).hexdigest()}"


def _swap(code: str, place: Place) -> str | None:
    """The cookie for a code that is good here; the code is spent by it.

    Encrypted, since it names the person's session.
    """
    value = cache.get(_key(code))
    if value is None or not cache.delete(_key(code)):
        return None
    if value[1:] != [place.code, place.port]:
        return None
    return secrets.encrypt(json.dumps([*value, time.time() + COOKIE_LIFE_S]))


def _allowed(cookie: str, place: Place) -> Sandbox | None:
    """The sandbox, if the cookie's session may see this place now."""
    try:
        session_key, code, port, over_at = json.loads(secrets.decrypt(cookie))
    except (ImproperlyConfigured, ValueError):
        return None
    if (code, port) != (place.code, place.port) or over_at < time.time():
        return None
    request = HttpRequest()
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(session_key)
    user = get_user(request)
    try:
        sandbox = access.get(user, Sandbox, place.code)
    except Http404:
        return None
    return sandbox if port_rights.may_open(user, sandbox, place.port) else None


def _public(place: Place) -> Sandbox | None:
    """The sandbox, if anybody may see this place now."""
    sandbox = Sandbox.objects.filter(code=place.code).first()
    if sandbox is None or not port_rights.is_public(sandbox, place.port):
        return None
    return sandbox


_known: dict[tuple[str, Place], tuple[float, Sandbox | None]] = {}


async def allowed(cookie: str, place: Place) -> Sandbox | None:
    """The sandbox, if who has the cookie, or anybody without one, may see the place.

    An answer is kept for KNOWN_S, since a page asks a lot.
    """
    kept = _known.get((cookie, place))
    if kept and time.monotonic() - kept[0] < KNOWN_S:
        return kept[1]
    ask = partial(_allowed, cookie) if cookie else _public
    sandbox = await database_sync_to_async(ask)(place)
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
    cookies = _cookies(headers.get("cookie", ""))
    cookie = cookies.get(cookie_name(), "")
    sandbox = await allowed(cookie, place) if cookie else None
    if sandbox is None:
        # A cookie that is worth nothing is none.
        cookie, sandbox = "", await allowed("", place)
    if sandbox is None:
        text = "Open this preview from the sandbox's Ports page."
        await refuse(scope, send, 403, text)
        return
    if not cookie and await preview_public.is_held(scope, send, headers, cookies):
        return
    with preview_public.counted(place if not cookie else None) as has_room:
        if not has_room:
            text = "Too many look at this preview now. Try again in a moment."
            await refuse(scope, send, 503, text)
            return
        await _pass_on(scope, receive, send, sandbox, cookie, place)


async def _pass_on(
    scope: Scope,
    receive: Receive,
    send: Send,
    sandbox: Sandbox,
    cookie: str,
    place: Place,
) -> None:
    """Join the browser and the server in the sandbox, for as long as that is right."""
    try:
        target = await database_sync_to_async(gateway.target)(sandbox, place.port)
    except SandboxError as error:
        await refuse(scope, send, error.status, str(error))
        return
    relay = relay_request if scope["type"] == "http" else relay_socket
    working = asyncio.ensure_future(relay(scope, receive, send, target, cookie_name()))
    try:
        await _while_allowed(working, cookie, place)
    except NoAnswer:
        text = (
            f"Nothing answers on port {place.port} in the sandbox. Start a server "
            "there, then load this page again."
        )
        await refuse(scope, send, 502, text)


async def _while_allowed(
    working: asyncio.Future[None], cookie: str, place: Place
) -> None:
    """Wait for the work's end, and stop it once the right to it is gone."""
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=RECHECK_S)
            if not working.done() and await allowed(cookie, place) is None:
                return
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _enter(scope: Scope, send: Send, place: Place) -> None:
    """Swap the code for the cookie and go to the preview's front page."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    code = query.get("code", [""])[0]
    cookie = await database_sync_to_async(_swap)(code, place)
    if cookie is None:
        text = "This link was used or is over. Open it again from the Ports page."
        await refuse(scope, send, 403, text)
        return
    how = "; SameSite=Lax" + ("; Secure" if settings.SECURE_COOKIES else "")
    if query.get("embed") and settings.SECURE_COOKIES:
        # For a frame on the dashboard alone: the browser keeps it apart by that site.
        how = "; SameSite=None; Secure; Partitioned"
    value = f"{cookie_name()}={cookie}; Path=/; HttpOnly; Max-Age={COOKIE_LIFE_S}{how}"
    headers = [
        (b"location", b"/"),
        (b"set-cookie", value.encode()),
        (b"cache-control", b"no-store"),
        (b"referrer-policy", b"no-referrer"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: one.value for name, one in SimpleCookie(header).items()}
    except CookieError:
        return {}


async def refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    """A small page that says what to do, or a refused socket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403})
        return
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    place = place_of(host)
    context = {
        "text": text,
        "site_url": settings.SITE_URL,
        "code": place.code if place else "",
    }
    body = render_to_string("preview_refused.html", context).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
