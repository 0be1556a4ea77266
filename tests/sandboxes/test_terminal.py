"""Terminals over their socket: a real bash in a real sandbox."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest
from channels.db import database_sync_to_async
from django.contrib.sessions.models import Session

from kode_web.teams.access import own_team
from sandboxes import shells, terminals
from sandboxes.models import Sandbox

from .sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


async def test_what_is_typed_is_answered(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("echo answer=$((6*7)); tty; echo $LANG\r")
        output = await socket.until(b"answer=42")
        await socket.until(b"C.UTF-8")
    assert b"/dev/pts/" in socket.output
    assert output


async def test_replay_from_an_offset_is_byte_exact(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as first:
        await first.type("for i in $(seq 500); do echo line $i; done; echo d''one\r")
        await first.until(b"done")
        epoch = first.controls[0]["epoch"]
        cut = len(first.output) // 3
        query = f"?from={cut}&epoch={epoch}"
        async with open_socket(house.bob, sandbox, terminal.code, query) as second:
            while second.offset < first.offset:
                await second.step()
    assert not second.controls[0]["reset"]
    assert second.output.startswith(first.output[cut:])


async def test_a_reload_replays_the_same_shell(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("mark=kept; echo be''fore\r")
        await socket.until(b"before")
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"before")
        await socket.type("echo $mark-$((1+1))\r")
        await socket.until(b"kept-2")


async def test_after_a_cut_a_full_screen_program_draws_again(
    house, sandbox, terminal, monkeypatch
) -> None:
    monkeypatch.setattr("sandboxes.ring.RING_BYTES", 4096)
    monkeypatch.setattr(terminals.Ring.__init__, "__defaults__", (4096,))
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("printf '\\033[?1049h'; seq 3000; top -d 60\r")
        await socket.until(b"COMMAND")
        session = terminals.sessions[terminal.code]
    assert session.ring.start > 0
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        start = await socket.until_control("start")
        await socket.until(b"COMMAND")
    assert start["cut"]
    assert "\x1b[?1049h" in start["modes"]


async def test_two_viewers_see_the_same(house, sandbox, terminal) -> None:
    async with (
        open_socket(house.bob, sandbox, terminal.code) as first,
        open_socket(house.alice, sandbox, terminal.code) as second,
    ):
        await first.type("echo to-$((5*5))\r")
        await first.until(b"to-25")
        await second.until(b"to-25")


async def test_a_viewer_watches_and_cannot_type(house, sandbox, terminal) -> None:
    async with (
        open_socket(house.bob, sandbox, terminal.code) as bob,
        open_socket(house.victor, sandbox, terminal.code) as victor,
    ):
        assert not (await victor.until_control("start"))["drive"]
        await victor.type("echo intruder-$((1+1))\r")
        await bob.type("echo mine-$((3+3))\r")
        await bob.until(b"mine-6")
        await victor.until(b"mine-6")
    assert b"intruder" not in bob.output


@pytest.mark.parametrize("missing", [True, False])
async def test_a_stranger_learns_nothing(house, sandbox, terminal, missing) -> None:
    other = Sandbox(code="0" * 32) if missing else sandbox
    async with open_socket(house.charlie, other, terminal.code) as socket:
        assert await socket.until_closed() == 4404
    assert socket.controls == []


async def test_signed_out_is_refused(sandbox, terminal) -> None:
    async with open_socket(None, sandbox, terminal.code) as socket:
        assert await socket.until_closed() == 4401


async def test_a_person_who_is_removed_types_nothing_more(
    house, sandbox, terminal, monkeypatch
) -> None:
    monkeypatch.setattr("sandboxes.consumers.INPUT_AGE_S", 0)
    async with open_socket(house.alice, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        await database_sync_to_async(house.alice.memberships.all().delete)()
        await socket.type("echo late-$((1+1))\r")
        assert await socket.until_closed() == 4404
    assert b"late-2" not in socket.output


@pytest.mark.parametrize(
    "text", ["{", "null", "123", "[]", '"\\ud800"', '{"ack":"x"}', "[" * 20000]
)
async def test_malformed_messages_are_answered(house, sandbox, terminal, text) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until_control("start")
        await socket.communicator.send_to(text_data=text)
        await socket.until_control("error")
        await socket.type("echo still-$((1+1))\r")
        await socket.until(b"still-2")


async def test_an_oversized_message_closes_the_socket(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until_control("start")
        await socket.type("x" * 70_000)
        assert await socket.until_closed() == 1009


async def test_exit_gives_the_code_and_ends_the_row(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("exit 7\r")
        assert await socket.until_closed() == 4410
    assert socket.controls[-1] == {"exit": 7}
    await database_sync_to_async(terminal.refresh_from_db)()
    assert terminal.exit_code == 7
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        assert await socket.until_closed() == 4410


async def test_output_waits_for_a_browser_that_does_not_draw(
    house, sandbox, terminal
) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        socket.acks = False
        await socket.type("head -c 20000000 /dev/zero | tr '\\0' x; echo e''nd\r")
        session = terminals.sessions[terminal.code]
        await asyncio.sleep(2)  # time enough for all of it, were it not held back
        held = session.ring.end
        assert held < 4 << 20
        while not socket.communicator.output_queue.empty():
            await socket.step()
        socket.acks = True
        await socket.control({"ack": socket.offset})
        await socket.until(b"end")
    assert session.ring.end > 20_000_000


async def test_a_keystroke_does_not_wait_for_a_slow_query(
    house, sandbox, terminal
) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        slow = asyncio.ensure_future(database_sync_to_async(time.sleep)(3))
        await socket.type("echo quick-$((1+1))\r")
        await socket.until(b"quick-2")
        assert not slow.done()
        await slow


async def test_a_terminal_is_reached_through_its_own_sandbox_alone(
    house, sandbox, terminal
) -> None:
    own = await database_sync_to_async(own_sandbox_of)(house.victor)
    async with (
        open_socket(house.bob, sandbox, terminal.code) as bob,
        open_socket(house.victor, own, terminal.code) as victor,
    ):
        await victor.type("echo intruder-$((1+1))\r")
        assert await victor.until_closed() == 4404
        await bob.type("echo mine-$((3+3))\r")
        await bob.until(b"mine-6")
    assert b"intruder" not in bob.output


def own_sandbox_of(user) -> Sandbox:
    return Sandbox.objects.create(
        team=own_team(user), owner=user, name="own", backend="local", state="running"
    )


async def test_keys_do_not_wait_for_each_other_behind_a_slow_query(
    house, sandbox, terminal
) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        slow = asyncio.ensure_future(database_sync_to_async(time.sleep)(3))
        for number in range(5):
            await socket.type(f"echo key-$(({number}+10))\r")
            await socket.until(b"key-1%d" % number)
        assert not slow.done()
        await slow


async def test_acknowledgements_are_never_too_many(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        socket.acks = False
        await socket.type("head -c 130000 /dev/zero | tr '\\0' x; echo e''nd\r")
        begin = socket.offset
        while socket.offset < begin + 100_000:
            await socket.step()
        for offset in range(begin, begin + 1000):
            await socket.control({"ack": offset})
        await socket.control({"ack": socket.offset})
        socket.acks = True
        await socket.until(b"end")


async def test_a_watcher_does_not_set_the_size(house, sandbox, terminal) -> None:
    async with (
        open_socket(house.victor, sandbox, terminal.code, "?rows=7&cols=31") as victor,
        open_socket(house.bob, sandbox, terminal.code, "?rows=30&cols=90") as bob,
    ):
        assert (await bob.until_control("size"))["size"] == [30, 90]
        await bob.until(b"$")
        await bob.type("echo size=$(stty size)=\r")
        await bob.until(b"size=30 90=")
        await victor.until_control_that(
            lambda control: control == {"size": [30, 90], "yours": False}
        )


async def test_the_size_follows_whoever_types(house, sandbox, terminal) -> None:
    async with (
        open_socket(house.bob, sandbox, terminal.code, "?rows=30&cols=90") as bob,
        open_socket(house.alice, sandbox, terminal.code, "?rows=20&cols=70") as alice,
    ):
        await bob.until(b"$")
        await alice.type("\r")
        mine = {"size": [20, 70], "yours": True}
        await alice.until_control_that(lambda control: control == mine)
        await alice.type("echo size=$(stty size)=\r")
        await alice.until(b"size=20 70=")
        theirs = {"size": [20, 70], "yours": False}
        await bob.until_control_that(lambda control: control == theirs)


async def test_only_the_driver_answers_a_program(house, sandbox, terminal) -> None:
    async with (
        open_socket(house.bob, sandbox, terminal.code) as bob,
        open_socket(house.alice, sandbox, terminal.code) as alice,
    ):
        await bob.until(b"$")
        await alice.until_control("size")
        await bob.type("read -rs -n 3 a; echo got=$a=\r")
        await bob.until(b"got=$a=")
        await alice.control({"reply": "BAD"})
        await alice.control({"size": [24, 80]})
        await alice.control({"never": "heard of"})
        await alice.until_control("error")
        await bob.control({"reply": "yes"})
        await bob.until(b"got=yes=")


async def test_a_role_that_is_lowered_stops_typing(house, sandbox, terminal) -> None:
    async with open_socket(house.alice, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        await database_sync_to_async(lower)(house.alice)
        await socket.until_control_that(lambda control: control.get("drive") is False)
        await socket.type("echo late-$((1+1))\r")
        session = terminals.sessions[terminal.code]
        assert session.driver is None
    assert b"late" not in socket.output


def lower(user) -> None:
    membership = user.memberships.get(team__slug="house")
    membership.role = "viewer"
    membership.save()


async def test_signing_out_closes_at_once(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        session = await Session.objects.aget()
        await database_sync_to_async(session.delete)()
        begun = time.monotonic()
        assert await socket.until_closed() == 4401
        assert time.monotonic() - begun < 2


async def test_a_shell_that_ends_is_in_the_timeline(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("exit 3\r")
        assert await socket.until_closed() == 4410
    event = await sandbox.events.filter(kind="terminal.closed").aget()
    assert event.data == {"name": terminal.name, "exit_code": 3}


async def test_a_new_shell_follows_one_that_ended(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("exit\r")
        await socket.until_closed()
    again = await database_sync_to_async(shells.create_row)(sandbox, house.bob)
    async with open_socket(house.bob, sandbox, again.code) as socket:
        await socket.type("echo new-$((1+1))\r")
        await socket.until(b"new-2")


async def test_the_twenty_first_socket_is_one_too_many(
    house, sandbox, terminal
) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(20):
            socket = open_socket(house.bob, sandbox, terminal.code)
            await (await stack.enter_async_context(socket)).until_control("start")
        async with open_socket(house.bob, sandbox, terminal.code) as one_more:
            assert await one_more.until_closed() == 1013
