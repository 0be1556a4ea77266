"""Previews that are open to anybody: a word before the first page, and a bound."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, quote

from django.conf import settings
from django.template.loader import render_to_string

from kode_web.preview_headers import SEEN

type Scope = MutableMapping[str, Any]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

GO_ON = "/.kode/go"
SEEN_LIFE_S = 7 * 24 * 3600
# Of one port at once, by people without an account.
MAX_AT_ONCE = 100
_open: Counter[object] = Counter()


@contextmanager
def counted(place: object | None) -> Iterator[bool]:
    """Hold one of the places of a public port; None is not counted."""
    if place is None:
        yield True
        return
    has_room = _open[place] < MAX_AT_ONCE
    _open[place] += has_room
    try:
        yield has_room
    finally:
        _open[place] -= has_room
        if not _open[place]:
            del _open[place]


async def is_held(
    scope: Scope, send: Send, headers: Mapping[str, str], cookies: Mapping[str, str]
) -> bool:
    """Whether a browser was given the word, or its answer was taken, instead.

    Only what a person navigates to: programs, and what a page asks for, pass.
    """
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    if scope["path"] == GO_ON:
        await _go_on(scope, send)
        return True
    if headers.get("sec-fetch-mode") != "navigate" or SEEN in cookies:
        return False
    raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    to = raw.partition("?")[0] + (f"?{query}" if query else "")
    text = render_to_string(
        "preview_public.html",
        {"go_on": f"{GO_ON}?to={quote(to, safe='')}", "site_url": settings.SITE_URL},
    )
    await _say(send, 200, [(b"content-type", b"text/html; charset=utf-8")], text)
    return True


async def _go_on(scope: Scope, send: Send) -> None:
    """Remember that it was read, and go where the person wanted to."""
    to = parse_qs(scope["query_string"].decode("latin-1")).get("to", ["/"])[0]
    if not to.startswith("/") or to[1:2] in ("/", "\\") or not to.isprintable():
        to = "/"
    secure = "; Secure" if settings.SECURE_COOKIES else ""
    cookie = f"{SEEN}=1; Path=/; HttpOnly; SameSite=Lax; Max-Age={SEEN_LIFE_S}{secure}"
    headers = [
        (b"location", quote(to, safe="/?&=%+:@!$'()*,;~#[]").encode()),
        (b"set-cookie", cookie.encode()),
    ]
    await _say(send, 303, headers, "")


async def _say(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], text: str
) -> None:
    body = text.encode()
    headers = [
        *headers,
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
