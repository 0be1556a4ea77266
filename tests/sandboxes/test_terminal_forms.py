"""Terminals by form: renamed; and where their shells are."""

import pytest
from channels.db import database_sync_to_async
from django.test import Client
from django.urls import reverse

from sandboxes import gateway, shells
from sandboxes.gateway import commands
from sandboxes.gateway.backends import FAILURES
from sandboxes.gateway.direct import NoDoor
from sandboxes.models import Terminal

from .sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def row(sandbox):
    return sandbox.terminals.create(name="Shell 1")


def post(person, sandbox, row, to: str, **data):
    client = Client()
    client.force_login(person)
    at = reverse(f"sandboxes:{to}", args=[sandbox.code, row.code])
    return client.post(at, data, headers={"accept": "application/json"})


def test_a_member_renames_a_shell(house, sandbox, row) -> None:
    assert post(house.bob, sandbox, row, "rename_terminal", name=" web  server ")
    row.refresh_from_db()
    assert row.name == "web server"


@pytest.mark.parametrize("name", ["", "   ", "x" * 41])
def test_a_name_that_is_none_is_refused(house, sandbox, row, name: str) -> None:
    answer = post(house.bob, sandbox, row, "rename_terminal", name=name)
    assert answer.status_code == 400
    assert "1 to 40" in answer.json()["error"]


def test_a_viewer_may_not_and_a_stranger_finds_nothing(house, sandbox, row) -> None:
    name = "rename_terminal"
    assert post(house.victor, sandbox, row, name, name="x").status_code == 403
    assert post(house.charlie, sandbox, row, name, name="x").status_code == 404


async def test_files_land_where_the_shell_is(house, sandbox, terminal) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("mkdir -p '/tmp/a b'; cd '/tmp/a b'; echo th''ere\r")
        await socket.until(b"there")
        where = await database_sync_to_async(shells.folder)(
            await Terminal.objects.aget(pk=terminal.pk)
        )
    assert where == "/tmp/a b"


async def test_a_sick_control_plane_leaves_open_terminals_alone(
    house, sandbox, terminal
) -> None:
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("echo re''ady\r")
        await socket.until(b"ready")
        breaker = gateway.breaker("local")
        for _ in range(FAILURES):
            breaker.note(failed=True)
        assert breaker.is_open
        try:
            await socket.type("echo st''ill\r")
            await socket.until(b"still")
            assert breaker.is_open
        finally:
            breaker.note(failed=False)


async def test_where_there_is_no_door_the_sdk_serves(
    house, sandbox, terminal, monkeypatch
) -> None:
    async def none(*_: object, **__: object) -> None:
        raise NoDoor

    monkeypatch.setattr(commands, "open_direct", none)
    async with open_socket(house.bob, sandbox, terminal.code) as socket:
        await socket.type("cd /tmp; echo re''ady\r")
        await socket.until(b"ready")
        await socket.control({"size": [30, 90]})
        await socket.type("stty size; pwd; exit 4\r")
        await socket.until(b"30 90")
        assert (await socket.until_control("exit"))["exit"] == 4
