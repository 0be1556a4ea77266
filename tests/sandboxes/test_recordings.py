"""Recordings of terminals: begun and ended by choice, played from an asciicast."""

import asyncio
import json
import time

import pytest
from channels.db import database_sync_to_async
from django.test import Client
from django.urls import reverse

from sandboxes import recordings, terminals
from sandboxes.models import Event, Recording

from .sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


def text_of(recording: Recording) -> str:
    """What it shows, after a check of its form."""
    header, *events = b"".join(recordings.lines(recording)).decode().splitlines()
    assert json.loads(header)["version"] == 2
    times = [json.loads(line)[0] for line in events]
    assert times == sorted(times)
    return "".join(e[2] for e in map(json.loads, events) if e[1] == "o")


async def ended(terminal) -> Recording:
    deadline = time.monotonic() + 20
    get = database_sync_to_async(lambda: terminal.recordings.get())
    while (found := await get()).ended_at is None:
        assert time.monotonic() < deadline, "the recording does not end"
        await asyncio.sleep(0.05)
    return found


async def test_a_recording_holds_what_was_shown_meanwhile(
    house, sandbox, terminal
) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("echo be''fore\r")
        await socket.until(b"before")
        await socket.control({"record": True})
        assert (await socket.until_control("recording"))["recording"]
        await socket.type("echo mean''while-é\r")
        await socket.until("meanwhile-é".encode())
        await socket.control({"size": [30, 100]})
        await socket.control({"record": False})
        await socket.until_control_that(lambda c: c.get("recording") is False)
        await socket.type("echo af''ter\r")
        await socket.until(b"after")
    recording = await ended(terminal)
    text = await database_sync_to_async(text_of)(recording)
    assert text.index("before") < text.index("meanwhile-é")
    assert "after" not in text


async def test_everybody_sees_that_it_is_recorded(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.control({"record": True})
        await socket.until_control("recording")
        async with open_socket(house.victor, sandbox, terminal.code) as watcher:
            assert (await watcher.until_control("recording"))["recording"]


async def test_who_may_not_type_may_not_record(house, sandbox, terminal) -> None:
    async with open_socket(house.victor, sandbox, terminal.code) as socket:
        await socket.control({"record": True})
        await socket.control("nonsense")
        await socket.until_control("error")
    assert not await Recording.objects.aexists()


async def test_to_begin_twice_makes_one(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.control({"record": True})
        await socket.control({"record": True})
        await socket.until_control("recording")
        await socket.control("nonsense")
        await socket.until_control("error")
    assert await Recording.objects.acount() == 1


async def test_it_ends_with_the_shell(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.control({"record": True})
        await socket.until_control("recording")
        await socket.type("echo la''st; exit\r")
        await socket.until_closed()
    recording = await ended(terminal)
    assert "last" in await database_sync_to_async(text_of)(recording)
    kinds = Event.objects.filter(kind__startswith="recording.").order_by("pk")
    found = [kind async for kind in kinds.values_list("kind", flat=True)]
    assert found == ["recording.started", "recording.ended"]


async def test_it_goes_on_in_a_new_process(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.control({"record": True})
        await socket.until_control("recording")
    session = terminals.sessions.pop(terminal.code)  # as after a restart
    for task in session._tasks:
        task.cancel()
    await session._pty.close()
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        assert (await socket.until_control("recording"))["recording"]
        await socket.type("echo later-$((1+1))\r")
        await socket.until(b"later-2")
        await socket.control({"record": False})
        await socket.until_control_that(lambda c: c.get("recording") is False)
    recording = await ended(terminal)
    assert "later-2" in await database_sync_to_async(text_of)(recording)


async def test_it_ends_when_it_is_full(house, sandbox, terminal, monkeypatch) -> None:
    monkeypatch.setattr(recordings, "MAX_BYTES", 20_000)
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.control({"record": True})
        await socket.until_control("recording")
        await socket.type("seq 20000\r")
        await socket.until_control_that(lambda c: c.get("recording") is False)
    recording = await ended(terminal)
    assert 20_000 < recording.size_bytes < 200_000


@pytest.fixture
def recording(house, sandbox) -> Recording:
    """One that has ended, of a terminal without a shell."""
    terminal = sandbox.terminals.create(name="Shell 1")
    row = recordings.start(house.bob, terminal, rows=24, cols=80)
    recordings._write(row, [json.dumps([0.5, "o", "kept"])], 4)
    recordings.end(row, house.bob)
    row.refresh_from_db()
    return row


def pages(recording: Recording) -> list[str]:
    codes = recording.terminal.sandbox.code, recording.code
    return [
        reverse("sandboxes:recordings", args=codes[:1]),
        reverse("sandboxes:recording", args=codes),
        reverse("sandboxes:cast", args=codes),
    ]


def test_a_viewer_plays_and_a_stranger_finds_nothing(house, recording) -> None:
    client = Client()
    for person, status in ((house.victor, 200), (house.charlie, 404)):
        client.force_login(person)
        for address in pages(recording):
            answer = client.get(address)
            assert answer.status_code == status
            if answer.streaming:
                assert b'"kept"' in b"".join(answer)


def test_a_recording_of_another_sandbox_is_not_there(house, sandbox, recording) -> None:
    other = sandbox.__class__.objects.create(
        team=house.team, name="other", backend="local", request_key="other"
    )
    client = Client()
    client.force_login(house.alice)
    at = reverse("sandboxes:cast", args=[other.code, recording.code])
    assert client.get(at).status_code == 404


def test_who_manages_deletes_it_once_it_has_ended(house, recording) -> None:
    codes = recording.terminal.sandbox.code, recording.code
    at = reverse("sandboxes:delete_recording", args=codes)
    client = Client()
    client.force_login(house.victor)
    assert client.post(at).status_code == 403
    client.force_login(house.alice)
    Recording.objects.update(ended_at=None)
    assert client.post(at).status_code == 409
    recordings.end(recording)
    assert client.post(at).status_code == 302
    assert not Recording.objects.exists()
