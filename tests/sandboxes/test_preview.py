"""Previews: a server in a real sandbox, seen through the proxy as browsers see it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from kode_web import preview
from kode_web.preview import Place, place_of
from kode_web.preview_headers import for_browser, for_sandbox
from kode_web.teams.models import Membership
from sandboxes.gateway import Target
from sandboxes.models import Sandbox
from tests.local.server import wait_for

from .previews import Site, click, enter

pytestmark = pytest.mark.django_db(transaction=True)
CODE = "0123456789abcdef" * 2


@pytest.fixture
def bob(house) -> Client:
    """Bob's browser on the dashboard."""
    client = Client(HTTP_HOST="localhost")
    client.force_login(house.bob)
    return client


@pytest.mark.parametrize(
    "host",
    [
        f"0-{CODE}",
        f"22-{CODE}",
        f"1023-{CODE}",
        f"49983-{CODE}",
        f"65536-{CODE}",
        f"70000-{CODE}",
        f"03000-{CODE}",
        f"3000-{CODE[:-1]}",
        f"3000-{CODE}0",
        f"3000-{CODE.upper()}",
        f"3000-{CODE}.x",
        f"x.3000-{CODE}",
        f"3000-{CODE}@evil",
        f"-{CODE}",
        "3000-",
        "٣٠٠٠-" + CODE,
    ],
)
def test_odd_hosts_are_no_place(host: str) -> None:
    assert place_of(f"{host}.{settings.PREVIEW_DOMAIN}") is None


def test_a_host_is_a_place() -> None:
    assert place_of(f"3000-{CODE}.{settings.PREVIEW_DOMAIN}") == Place(CODE, 3000)
    assert place_of(f"3000-{CODE}.evil.example") is None


def test_a_click_lets_the_browser_in_once(site, served, bob) -> None:
    path = click(bob, served)
    first, second = site.get(served, path), site.get(served, path)
    assert (first.status_code, second.status_code) == (303, 403)
    cookie = first.headers["set-cookie"]
    assert cookie.startswith("__Host-kode-preview=")
    assert {"HttpOnly", "Secure", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert bob.session.session_key not in cookie
    answer = site.get(served, headers={"Cookie": cookie.partition(";")[0]})
    assert answer.json()["path"] == "/"


def test_neither_cookie_nor_code_reaches_the_sandbox(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    answer = site.get(served, headers={"Cookie": f"a=1; {cookie}; b=2"})
    told = answer.json()["headers"]
    assert told["cookie"] == "a=1; b=2"
    assert cookie.partition("=")[2] not in json.dumps(answer.json())


def test_without_a_cookie_nothing_is_shown(site, served) -> None:
    answer = site.get(served)
    assert answer.status_code == 403
    assert "Ports page" in answer.text


def test_a_cookie_opens_its_own_port_only(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    other = {"Host": served.preview_host(3001), "Cookie": cookie}
    assert site.get(served, headers=other).status_code == 403


def test_a_code_opens_its_own_port_only(site, served, bob) -> None:
    path = click(bob, served, 3001)
    assert site.get(served, path).status_code == 403


def test_a_stranger_gets_no_code(site, served, house) -> None:
    charlie = Client(HTTP_HOST="localhost")
    charlie.force_login(house.charlie)
    address = "/sandboxes/{}/ports/3000/open/"
    real = charlie.post(address.format(served.code), secure=True)
    none = charlie.post(address.format("0" * 32), secure=True)
    assert real.status_code == none.status_code == 404


@pytest.mark.parametrize("cause", ["signed out", "left the team", "disabled"])
def test_the_right_ends_with_its_cause(site, served, bob, house, cause) -> None:
    cookie = enter(site, bob, served)
    assert site.get(served, headers={"Cookie": cookie}).status_code == 203
    match cause:
        case "signed out":
            Session.objects.all().delete()
        case "left the team":
            Membership.objects.filter(user=house.bob, team=house.team).delete()
        case "disabled":
            house.bob.is_active = False
            house.bob.save()
    wait_for(lambda: site.get(served, headers={"Cookie": cookie}).status_code == 403)


def test_a_stream_ends_with_the_right_to_it(site, served, bob, monkeypatch) -> None:
    monkeypatch.setattr(preview, "RECHECK_S", 0.2)
    monkeypatch.setattr(preview, "KNOWN_S", 0.1)
    cookie = enter(site, bob, served)

    async def watch() -> int:
        async with joined(site, served, cookie) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            await asyncio.to_thread(Session.objects.all().delete)
            await asyncio.wait_for(socket.wait_closed(), 10)
            return socket.close_code

    assert asyncio.run(watch()) is not None


def test_large_bodies_pass_both_ways(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    body = bytes(range(256)) * 50_000
    answer = site.ask(
        "POST", served, "/up?x=%2F#", content=body, headers={"Cookie": cookie}
    )
    assert answer.json()["size"] == len(body)
    pieces = (body[n : n + 65536] for n in range(0, len(body), 65536))
    chunked = site.ask(
        "POST", served, "/up", content=pieces, headers={"Cookie": cookie}
    )
    assert chunked.json()["sha"] == answer.json()["sha"]


def test_the_request_line_is_not_written_anew(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    path = "/a%2Fb/%41//..%2f?q=%20x&&y|z"
    answer = site.get(served, path, headers={"Cookie": cookie})
    assert answer.json()["path"] == path


def test_the_server_sees_one_consistent_origin(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    here = f"http://{served.preview_host(3000)}"
    headers = {"Cookie": cookie, "Origin": here, "Referer": f"{here}/a?b"}
    headers["User-Agent"] = "browser"
    told = site.get(served, headers=headers).json()["headers"]
    assert told["origin"].endswith(f"//{told['host']}")
    assert told["referer"] == f"{told['origin']}/a?b"
    assert told["x-forwarded-host"] == served.preview_host(3000)
    assert told["user-agent"] == "browser"


def test_a_page_of_another_origin_stays_one(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    headers = {"Cookie": cookie, "Origin": "http://evil.example"}
    told = site.get(served, headers=headers).json()["headers"]
    assert told["origin"] == "http://evil.example"


def test_events_stream_as_they_come(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    headers = {"Host": served.preview_host(3000), "Cookie": cookie}
    with site.http.stream("GET", "/events", headers=headers) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"data: 0\n\n"
        assert b"".join(pieces) == b"data: 1\n\ndata: 2\n\n"


def test_a_closed_port_says_the_next_step(site, sandbox, bob) -> None:
    cookie = enter(site, bob, sandbox)
    answer = site.get(sandbox, headers={"Cookie": cookie})
    assert answer.status_code == 502
    assert "Start a server" in answer.text


def test_a_server_that_speaks_no_http_is_no_answer(site, served, bob) -> None:
    cookie = enter(site, bob, served)
    answer = site.get(served, "/broken", headers={"Cookie": cookie})
    assert answer.status_code == 502


@contextlib.asynccontextmanager
async def joined(site: Site, sandbox: Sandbox, cookie: str) -> AsyncIterator[Any]:
    """A websocket to the server in the sandbox."""
    host = sandbox.preview_host(3000)
    async with connect(
        f"ws://{host}/echo",
        host="127.0.0.1",
        port=site.port,
        additional_headers={"Cookie": cookie},
        origin=f"http://{host}",
        compression=None,
        proxy=None,
    ) as socket:
        yield socket


def test_websockets_pass_text_and_bytes(site, served, bob) -> None:
    cookie = enter(site, bob, served)

    async def talk() -> list[Any]:
        async with joined(site, served, cookie) as socket:
            await socket.send("text")
            await socket.send(b"\x00\xff" * 50_000)
            return [await socket.recv(), await socket.recv()]

    assert asyncio.run(talk()) == ["text", b"\x00\xff" * 50_000]


def test_a_websocket_without_a_cookie_is_refused(site, served) -> None:
    async def talk() -> None:
        async with joined(site, served, "a=1"):
            pass

    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(talk())
    assert refused.value.response.status_code == 403


TARGET = Target("https://3000-abc.e2b.app", {"host": "3000-abc.e2b.app"})


def test_headers_of_one_connection_stay_behind() -> None:
    given = [
        (b"host", b"3000-x.preview.test"),
        (b"connection", b"keep-alive, X-Secret"),
        (b"x-secret", b"1"),
        (b"te", b"trailers"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"e2b-traffic-access-token", b"theirs"),
        (b"accept", b"*/*"),
    ]
    kept = for_sandbox(given, TARGET, "ours")
    assert kept == [
        ("accept", "*/*"),
        ("x-forwarded-host", "3000-x.preview.test"),
        ("host", "3000-abc.e2b.app"),
    ]


def test_a_sandbox_cannot_speak_for_the_site() -> None:
    given = [
        (b"Set-Cookie", b"a=1; Domain=.preview.test; Path=/"),
        (b"Set-Cookie", b"ours=planted; Path=/"),
        (b"Strict-Transport-Security", b"max-age=1; includeSubDomains"),
        (b"Clear-Site-Data", b'"*"'),
        (b"Alt-Svc", b'h3=":443"'),
        (b"Location", b"https://3000-abc.e2b.app/next?x=1"),
        (b"X-Own", b"1"),
    ]
    assert for_browser(given, {"3000-abc.e2b.app"}, "ours") == [
        (b"set-cookie", b"a=1; Path=/"),
        (b"location", b"/next?x=1"),
        (b"x-own", b"1"),
    ]


def test_redirects_elsewhere_are_the_sandboxs_own() -> None:
    given = [(b"location", b"https://example.test/x")]
    assert for_browser(given, {"3000-abc.e2b.app"}, "ours") == given
