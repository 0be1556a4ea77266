"""What views share: a page or its fragment, and streams that wait for readers."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def page(
    request: HttpRequest,
    template: str,
    part: str | None = None,
    context: dict[str, Any] | None = None,
    *,
    status: int = 200,
) -> HttpResponse:
    """The whole page, or its partial `part` when htmx asks for it."""
    name = f"{template}#{part}" if part and wants_part(request) else template
    response = render(request, name, context, status=status)
    response["Vary"] = "HX-Request"
    return response


def wants_part(request: HttpRequest) -> bool:
    """Whether htmx asks for a fragment; a boosted link wants the page."""
    headers = request.headers
    return headers.get("HX-Request") == "true" and headers.get("HX-Boosted") != "true"


def pieces(
    request: HttpRequest, content: Iterator[bytes]
) -> Iterable[bytes] | AsyncIterator[bytes]:
    """Content for a StreamingHttpResponse that is read only as fast as it is sent.

    Under ASGI Django would collect a plain iterator in memory first.
    """
    return _drawn(content) if isinstance(request, ASGIRequest) else content


async def _drawn(content: Iterator[bytes]) -> AsyncIterator[bytes]:
    draw = sync_to_async(_next, thread_sensitive=False)
    close = getattr(content, "close", None)
    try:
        while (piece := await draw(content)) is not None:
            yield piece
    finally:
        if close is not None:
            await sync_to_async(close, thread_sensitive=False)()


def _next(content: Iterator[bytes]) -> bytes | None:
    return next(content, None)
