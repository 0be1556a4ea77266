"""Who may open a port: its owner, the team, or anybody, until it is resumed."""

import httpx
import pytest
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from kode_web import preview, preview_public
from sandboxes import actions, port_rights
from sandboxes.models import Sandbox

from .previews import click, enter

pytestmark = pytest.mark.django_db(transaction=True)
NAVIGATE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def browser(user) -> Client:
    client = Client(HTTP_HOST="localhost")
    client.force_login(user)
    return client


def opens(user, sandbox: Sandbox) -> int:
    """The status of a click on the port, with the question answered."""
    address = f"/sandboxes/{sandbox.code}/ports/3000/open/"
    return browser(user).post(address, {"sure": "1"}, secure=True).status_code


def share(user, sandbox: Sandbox, visibility: str) -> int:
    address = f"/sandboxes/{sandbox.code}/ports/3000/share/"
    return browser(user).post(address, {"visibility": visibility}).status_code


@pytest.fixture
def bobs(house, sandbox: Sandbox) -> Sandbox:
    Sandbox.objects.filter(pk=sandbox.pk).update(owner=house.bob)
    sandbox.refresh_from_db()
    return sandbox


@pytest.mark.parametrize(
    ("visibility", "victor"), [("private", 403), ("team", 302), ("public", 302)]
)
def test_who_may_open_it(house, bobs, visibility: str, victor: int) -> None:
    port_rights.share(house.bob, bobs, 3000, visibility)
    assert opens(house.bob, bobs) == 302
    assert opens(house.alice, bobs) == 302
    assert opens(house.victor, bobs) == victor
    # A public port has an address of its own; the dashboard stays closed.
    assert opens(house.charlie, bobs) == 404


def test_who_may_share_it(house, bobs) -> None:
    assert share(house.victor, bobs, "public") == 403
    assert share(house.charlie, bobs, "public") == 404
    assert not bobs.shared_ports.exists()
    assert share(house.bob, bobs, "team") == 302
    assert share(house.alice, bobs, "public") == 302
    assert share(house.alice, bobs, "world") == 400
    kinds = bobs.events.filter(kind="port.shared")
    assert [event.data["visibility"] for event in kinds.order_by("pk")] == [
        "team",
        "public",
    ]
    assert share(house.alice, bobs, "private") == 302
    assert not bobs.shared_ports.exists()


@pytest.mark.parametrize("port", [22, 1023, 49983, 65536])
def test_some_ports_are_nobodys(house, bobs, port: int) -> None:
    address = f"/sandboxes/{bobs.code}/ports/{port}/share/"
    answer = browser(house.bob).post(address, {"visibility": "public"})
    assert answer.status_code == 400


def test_a_resume_makes_it_private_again(house, bobs) -> None:
    port_rights.share(house.bob, bobs, 3000, "public")
    actions.pause(house.bob, bobs)
    actions.resume(house.bob, bobs)
    assert not bobs.shared_ports.exists()


def test_anybody_opens_a_public_one_and_no_other(house, site, served) -> None:
    assert site.get(served, "/echo").status_code == 403
    port_rights.share(house.bob, served, 3000, "public")
    preview._known.clear()
    assert site.get(served, "/echo").status_code == 203
    other = site.http.get("/", headers={"Host": served.preview_host(3001)})
    assert other.status_code == 403


def test_a_person_is_told_once_what_it_is(house, site, served) -> None:
    port_rights.share(house.bob, served, 3000, "public")
    preview._known.clear()
    asked = site.get(served, "/echo?a=1", headers=NAVIGATE)
    assert "Go on" in asked.text
    assert "frame-ancestors" not in asked.headers["content-security-policy"]
    on = site.get(served, "/.kode/go?to=%2Fecho%3Fa%3D1", headers=NAVIGATE)
    assert (on.status_code, on.headers["location"]) == (303, "/echo?a=1")
    seen = on.headers["set-cookie"].partition(";")[0]
    shown = site.get(served, "/echo", headers=NAVIGATE | {"Cookie": f"{seen}; a=b"})
    assert "kode-seen" not in shown.text
    assert "Go on" not in shown.text


@pytest.mark.parametrize(
    "to", ["//evil.test", "/\\evil.test", "https://evil.test", "evil", "/%0d%0ax"]
)
def test_going_on_stays_on_the_host(house, site, served, to: str) -> None:
    port_rights.share(house.bob, served, 3000, "public")
    preview._known.clear()
    answer = site.get(served, f"/.kode/go?to={to}", headers=NAVIGATE)
    assert answer.status_code == 303
    where = httpx.URL("http://here.test/").join(answer.headers["location"])
    assert where.host == "here.test"


def test_a_stream_ends_when_it_is_private_again(
    house,
    site,
    served,
    monkeypatch,
) -> None:
    monkeypatch.setattr(preview, "RECHECK_S", 0.2)
    monkeypatch.setattr(preview, "KNOWN_S", 0.1)
    port_rights.share(house.bob, served, 3000, "public")
    preview._known.clear()
    address = f"ws://127.0.0.1:{site.port}/ws"
    host = served.preview_host(3000)
    with connect(address, additional_headers={"Host": host}) as socket:
        socket.send("hi")
        assert socket.recv(20)
        port_rights.share(house.bob, served, 3000, "private")
        with pytest.raises(ConnectionClosed):
            socket.recv(20)
    with pytest.raises(InvalidStatus):
        connect(address, additional_headers={"Host": host})


def test_public_visitors_have_a_bound(house, site, served, monkeypatch) -> None:
    monkeypatch.setattr(preview_public, "MAX_AT_ONCE", 0)
    port_rights.share(house.bob, served, 3000, "public")
    preview._known.clear()
    assert site.get(served, "/echo").status_code == 503
    # Whoever has a cookie is not counted.
    cookie = enter(site, browser(house.bob), served)
    assert site.get(served, "/echo", headers={"Cookie": cookie}).status_code == 203


def test_a_frame_gets_a_cookie_of_its_own_kind(house, site, served) -> None:
    client = browser(house.bob)
    address = f"/sandboxes/{served.code}/ports/3000/open/"
    accept = {"accept": "application/json"}
    answer = client.post(address, headers=accept, secure=True)
    path = httpx.URL(answer.json()["url"]).raw_path.decode()
    cookie = site.get(served, path).headers["set-cookie"]
    assert "SameSite=None; Secure; Partitioned" in cookie
    plain = site.get(served, click(client, served)).headers["set-cookie"]
    assert "SameSite=Lax" in plain
    assert "Partitioned" not in plain
    shown = site.get(served, "/echo", headers={"Cookie": cookie.partition(";")[0]})
    assert "frame-ancestors 'self'" in shown.headers["content-security-policy"]
