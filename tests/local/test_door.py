"""The door for terminals: who comes in, and what goes through."""

import asyncio
import hashlib
import hmac
import json
import socket
import struct
from urllib.parse import urlsplit

import pytest

HEAD = struct.Struct(">cI")
WAIT_S = 20


def proof(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


class Client:
    """One connection, byte by byte as the protocol says."""

    def __init__(self, runtime) -> None:
        self.runtime = runtime
        self.key = runtime.api_key

    async def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.connect(f"\0kode-terminals-{urlsplit(self.runtime.api_url).port}")
        self.reader, self.writer = await asyncio.open_unix_connection(sock=sock)

    async def say(self, **what: object) -> dict[str, object]:
        self.writer.write(json.dumps(what).encode() + b"\n")
        text = await asyncio.wait_for(self.reader.readline(), WAIT_S)
        return json.loads(text) if text else {}

    async def ask(self, **what: object) -> dict[str, object]:
        await self.connect()
        greeting = await self.say(nonce="mine")
        assert greeting["proof"] == proof(self.runtime.api_key, "server mine")
        given = proof(self.key, f"client {greeting['nonce']}")
        return await self.say(proof=given, **what)

    async def type(self, text: str) -> None:
        data = text.encode()
        self.writer.write(HEAD.pack(b"i", len(data)) + data)

    async def frame(self) -> tuple[bytes, bytes]:
        kind, length = HEAD.unpack(await self.reader.readexactly(HEAD.size))
        return kind, await self.reader.readexactly(length)

    async def until(self, text: bytes) -> None:
        seen = b""
        async with asyncio.timeout(WAIT_S):
            while text not in seen:
                kind, data = await self.frame()
                assert kind == b"o"
                seen += data

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


SHELL = {"rows": 24, "cols": 80, "cwd": "/tmp", "envs": {"COLOUR": "blue"}}


@pytest.fixture
def box(sandbox) -> str:
    return sandbox.sandbox_id


async def test_a_shell_begins_is_left_and_followed_again(runtime, box) -> None:
    first, second = Client(runtime), Client(runtime)
    begun = await first.ask(sandbox=box, **SHELL)
    await first.type("stty size; pwd; echo $COLOUR\r")
    await first.until(b"24 80\r\n/tmp\r\nblue")
    followed = await second.ask(sandbox=box, pid=begun["pid"])
    assert followed["pid"] == begun["pid"]
    await first.close()
    size = b"40 100"
    second.writer.write(HEAD.pack(b"r", len(size)) + size)
    await second.type("stty size\r")
    await second.until(b"40 100\r\n")
    await second.type("exit 3\r")
    async with asyncio.timeout(WAIT_S):
        while (frame := await second.frame())[0] != b"e":
            continue
    assert frame == (b"e", b"3")
    late = Client(runtime)
    await late.ask(sandbox=box, pid=begun["pid"])
    assert await late.frame() == (b"e", b"3")
    for client in (second, late):
        await client.close()


async def test_a_shell_is_ended(runtime, box) -> None:
    client = Client(runtime)
    await client.ask(sandbox=box, **SHELL)
    client.writer.write(HEAD.pack(b"x", 0))
    async with asyncio.timeout(WAIT_S):
        while (frame := await client.frame())[0] != b"e":
            continue
    assert frame == (b"e", b"-1")
    await client.close()


async def test_without_the_key_nobody_comes_in(runtime, box) -> None:
    client = Client(runtime)
    client.key = "e2b_" + "0" * 40
    answer = await client.ask(sandbox=box, **SHELL)
    assert answer["code"] == 401
    await client.close()
    await client.connect()
    greeting = await client.say(nonce="a")
    # What the door proved is no proof of a client.
    assert (await client.say(proof=greeting["proof"], sandbox=box))["code"] == 401
    await client.close()


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"sandbox": "inone", "pid": 1}, 410),
        ({"pid": 99999}, 404),
        ({"pid": "1"}, 404),
        ({"pid": True}, 404),
        ({}, 400),
        ({"rows": "x", "cols": 80}, 400),
        ({"rows": 24, "cols": 80, "cwd": "/nowhere"}, 400),
        ({"rows": 24, "cols": 80, "envs": {"A": "\0"}}, 400),
        ({"rows": -1, "cols": 80}, 400),
    ],
)
async def test_what_cannot_be_is_refused(runtime, box, asked, code: int) -> None:
    client = Client(runtime)
    answer = await client.ask(**{"sandbox": box} | asked)
    assert answer.get("code") == code, answer
    await client.close()


@pytest.mark.parametrize(
    "said", [b"\n", b"[]\n", b"{\n", b"\xff\n", b"x" * 400_000, b"[" * 100_000 + b"\n"]
)
async def test_nonsense_is_turned_away(runtime, said: bytes) -> None:
    client = Client(runtime)
    await client.connect()
    client.writer.write(said)
    async with asyncio.timeout(WAIT_S):
        await client.reader.read()
    client.writer.close()
    # And the door is open to others.
    await client.connect()
    assert "proof" in await client.say(nonce="a")
    await client.close()
