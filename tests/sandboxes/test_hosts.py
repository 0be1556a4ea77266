"""What the outermost application lets in: hosts, headers, bodies."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from kode_web.asgi import application
from kode_web.urls import urlpatterns as product

pytestmark = pytest.mark.django_db(transaction=True)


def echo(request: HttpRequest) -> HttpResponse:
    """What Django takes a request for."""
    said = (request.path, request.META.get("SCRIPT_NAME"), request.META["REMOTE_ADDR"])
    seen = [name for name in request.headers if name.startswith(("X-", "Forwarded"))]
    return HttpResponse(f"{said} {seen} {len(request.body)}")


urlpatterns = [
    path("echo/", echo),
    path("sandboxes/<str:code>/files/<path:path>", echo),
    *product,
]


async def ask(
    path_: str = "/echo/",
    *,
    host: str = "localhost:8000",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: AsyncIterator[bytes] | None = None,
    kind: str = "http",
) -> tuple[int, bytes, int]:
    """One request: its status, its answer, and how much of the body was taken."""
    taken, is_over = 0, False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal taken, is_over
        if kind == "websocket":
            return {"type": "websocket.connect"}
        if is_over:
            await asyncio.Event().wait()
        piece = b"" if body is None else await anext(body, b"")
        taken += len(piece)
        is_over = piece == b""
        return {"type": "http.request", "body": piece, "more_body": not is_over}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": "POST" if body else "GET",
        "path": path_,
        "raw_path": path_.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(b"host", host.encode("latin-1")), *headers],
        "client": ("10.1.2.3", 5),
        "server": ("127.0.0.1", 8000),
        "subprotocols": [],
        "asgi": {"version": "3.0"},
    }
    await application(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent)
    return sent[0].get("status", sent[0].get("code")), answer, taken


async def zeros(megabytes: int) -> AsyncIterator[bytes]:
    for _ in range(megabytes * 16):
        yield bytes(65536)


@pytest.fixture(autouse=True)
def urls(settings) -> None:
    """Views that say what they saw."""
    settings.ROOT_URLCONF = __name__


async def test_the_dashboards_host_reaches_django() -> None:
    status, answer, _ = await ask()
    assert (status, answer) == (200, b"('/echo/', '', '10.1.2.3') [] 0")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil.example:8000@localhost",
        "preview.localhost:8000",
        "localhost:8000.evil.example",
        "xlocalhost",
        "3000-x.preview.localhost",
        "3000-x.preview.localhost:9",
        "3000-x.preview.localhost:8000.evil.example",
    ],
)
async def test_other_hosts_reach_nothing(host: str) -> None:
    assert (await ask(host=host))[0] == 400
    assert (await ask("/ws/agents/x/", host=host, kind="websocket"))[0] == 4404


@pytest.mark.parametrize("path_", ["/echo/", "/admin/", "/healthz"])
async def test_a_preview_host_never_reaches_django(path_: str) -> None:
    host = f"3000-{'0' * 32}.{settings.PREVIEW_DOMAIN}"
    status, answer, _ = await ask(path_, host=host)
    assert status == 403
    assert b"Ports page" in answer
    assert (await ask("/ws/agents/x/", host=host, kind="websocket"))[0] == 4403


async def test_what_only_a_proxy_may_say_is_dropped() -> None:
    names = (b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"forwarded")
    headers = (*((name, b"evil") for name in names), (b"daphne-root-path", b"/evil"))
    status, answer, _ = await ask(headers=headers)
    assert (status, answer) == (200, b"('/echo/', '', '10.1.2.3') [] 0")


async def test_a_body_is_refused_by_its_length_unread() -> None:
    length = str(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1).encode()
    status, _, taken = await ask(headers=((b"content-length", length),), body=zeros(6))
    assert (status, taken) == (413, 0)


async def test_a_body_without_a_length_is_counted() -> None:
    status, _, taken = await ask(body=zeros(300))
    assert status == 413
    assert taken <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 65536


@pytest.mark.parametrize("length", [b"-1", b"5, 5", b"abc", b"\xb2"])
async def test_an_odd_length_is_refused(length: bytes) -> None:
    headers = ((b"content-length", length),)
    assert (await ask(headers=headers, body=zeros(1)))[0] == 413


async def test_files_may_be_larger_but_not_without_end(settings) -> None:
    settings.MAX_UPLOAD_BYTES = 8 << 20
    address = f"/sandboxes/{'0' * 32}/files/x"
    assert (await ask(address, body=zeros(9)))[0] == 413
    assert (await ask(f"/sandboxes/x/files/{'0' * 32}", body=zeros(7)))[0] == 413
