"""A web process that begins anew follows the shells that were there before."""

import asyncio
import time

import pytest
from channels.db import database_sync_to_async

from sandboxes import shells, terminals
from sandboxes.models import Terminal

from .sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


async def restarted(terminal: Terminal) -> None:
    """What is left after the web process was killed, once the output was kept."""
    session = terminals.sessions.pop(terminal.code)
    deadline = time.monotonic() + 20
    while await database_sync_to_async(shells.kept)(terminal) != session.ring.tail(
        terminals.KEPT_BYTES
    ):
        assert time.monotonic() < deadline, "the output was not kept"
        await asyncio.sleep(0.1)
    for task in session._tasks:
        task.cancel()
    await session._pty.close()


async def test_a_new_process_follows_the_same_shell(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("mark=kept; echo be''fore\r")
        await socket.until(b"before")
    await restarted(terminal)
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"before")
        await socket.type("echo $mark-$((1+1))\r")
        await socket.until(b"kept-2")
    assert socket.controls[0]["gap"]


async def test_who_watched_before_a_restart_keeps_the_screen(
    house, sandbox, terminal
) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("mark=kept; echo be''fore\r")
        await socket.until(b"before")
    await restarted(terminal)
    query = f"?from={socket.offset}&epoch={socket.controls[0]['epoch']}"
    async with open_socket(house.bob, sandbox, terminal.code, query) as again:
        await again.type("echo $mark-$((1+1))\r")
        await again.until(b"kept-2")
    assert again.controls[0]["gap"]
    assert not again.controls[0]["reset"]
    assert b"before" not in again.output


async def test_a_shell_that_ended_keeps_no_output(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("echo be''fore; sleep 3\r")
        await socket.until(b"before")
        await socket.type("exit\r")
        await socket.until_closed()
    assert await database_sync_to_async(shells.kept)(terminal) == b""


async def test_a_program_with_a_screen_draws_again_after_a_restart(
    house, sandbox, terminal
) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"$")
        await socket.type("vim -u NONE -c 'call setline(1, \"drawn-\".(6*7))'\r")
        await socket.until(b"drawn-42")
    await restarted(terminal)
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.until(b"drawn-42")
