"""Terminals through both servers, each as a real process, over real sockets."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.local.server import REPOSITORY, Runtime

WAIT_S = 30
SERVERS = {
    "uvicorn": "uvicorn kode_web.asgi:application --lifespan off --host 127.0.0.1 "
    "--ws-per-message-deflate false --timeout-graceful-shutdown 5 --port",
    "daphne": "daphne kode_web.asgi:application -b 127.0.0.1 -v 0 -p",
}
# Makes a person, a running sandbox and terminals; prints how to reach them.
PREPARE = """
import json, time
import django
django.setup()
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from kode_web.teams import access
from kode_web.teams.models import User
from sandboxes import actions, shells
call_command("migrate", verbosity=0)
user = User.objects.create_user("bob@example.test", "pass word")
wanted = actions.CreateRequest(name="box")
sandbox = actions.create(user, access.own_team(user), wanted, key="k")
while sandbox.state == "creating":
    time.sleep(0.05)
    sandbox.refresh_from_db()
assert sandbox.is_running, sandbox.error
client = Client()
client.force_login(user)
key = client.cookies[settings.SESSION_COOKIE_NAME].value
codes = [shells.create_row(sandbox, user).code for _ in range(8)]
cookie = f"{settings.SESSION_COOKIE_NAME}={key}"
print("JSON" + json.dumps([cookie, sandbox.code, codes]))
"""


@dataclass
class Site:
    """A server of one kind, with a person and a sandbox behind it."""

    kind: str
    port: int
    env: dict[str, str]
    cookie: str = ""
    sandbox: str = ""
    terminals: list[str] = field(default_factory=list)
    process: Any = field(default=None, repr=False)

    def prepare(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PREPARE],
            cwd=REPOSITORY,
            env=self.env,
            stdout=subprocess.PIPE,
            check=True,
        )
        found = json.loads(done.stdout.decode().partition("JSON")[2])
        self.cookie, self.sandbox, self.terminals = found

    def start(self) -> None:
        command = [sys.executable, "-m", *SERVERS[self.kind].split(), str(self.port)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=self.env)
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"{self.kind} does not serve")

    def stop(self) -> float:
        """End it as a supervisor does; seconds that took."""
        begun = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - begun

    @property
    def memory_mb(self) -> float:
        """What the process holds in memory now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.fixture(scope="module", params=list(SERVERS))
def site(
    request, backend_runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KODE_", "E2B_"))}
    env |= {
        "KODE_DATA": str(tmp_path_factory.mktemp("site")),
        "KODE_SITE_URL": f"http://localhost:{port}",
        "KODE_RUNTIME_URL": backend_runtime.api_url,
        "KODE_RUNTIME_KEY_FILE": str(backend_runtime.root / "api-key"),
        "DJANGO_SETTINGS_MODULE": "kode_web.settings",
    }
    site = Site(request.param, port, env)
    site.prepare()
    site.start()
    yield site
    site.stop()


class Browser:
    """What a page does with a terminal's socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.output = bytearray()
        self.start: dict[str, Any] = {}
        self.offset = 0

    async def step(self) -> None:
        data = await asyncio.wait_for(self.connection.recv(), WAIT_S)
        if isinstance(data, str):
            message = json.loads(data)
            if "start" in message:
                self.start, self.offset = message, message["start"]
            return
        self.output += data
        self.offset += len(data)
        await self.connection.send(json.dumps({"ack": self.offset}))

    async def until(self, text: bytes) -> None:
        seen = 0
        while self.output.find(text, max(0, seen - len(text))) < 0:
            seen = len(self.output)
            await self.step()

    async def until_closed(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.step()

    async def type(self, text: str) -> None:
        await self.connection.send(text.encode())


@contextlib.asynccontextmanager
async def browser(site: Site, terminal: str, query: str = "") -> AsyncIterator[Browser]:
    path = f"/ws/sandboxes/{site.sandbox}/terminals/{terminal}/{query}"
    async with connect(
        f"ws://localhost:{site.port}{path}",
        origin=site.env["KODE_SITE_URL"],
        additional_headers={"Cookie": site.cookie},
        compression=None,
        max_queue=2,
        max_size=None,
        proxy=None,
    ) as connection:
        yield Browser(connection)


async def test_what_is_typed_is_answered(site: Site) -> None:
    async with browser(site, site.terminals.pop()) as page:
        await page.type("echo 'é 中' $((6*7))\r")
        await page.until("é 中 42".encode())


async def test_a_browser_that_does_not_read_costs_no_memory(site: Site) -> None:
    async with browser(site, site.terminals.pop()) as page:
        await page.until(b"$")
        before = most = site.memory_mb
        await page.type("head -c 60000000 /dev/zero | tr '\\0' x; echo e''nd\r")
        end = time.monotonic() + 4
        while time.monotonic() < end:
            await asyncio.sleep(0.1)
            most = max(most, site.memory_mb)
        assert most - before < 8
        await page.until(b"end")
    assert page.output.count(b"x") >= 60_000_000


async def test_a_dropped_connection_loses_no_byte(site: Site) -> None:
    terminal = site.terminals.pop()
    async with browser(site, terminal) as first:
        await first.until(b"$")
        await first.type("PS1=; stty -echo; seq 100000 200000; echo d''one\r")
        while len(first.output) < 300_000:
            await first.step()
        first.connection.transport.abort()
    query = f"?from={first.offset}&epoch={first.start['epoch']}"
    async with browser(site, terminal, query) as second:
        await second.until(b"done")
    assert not second.start["reset"]
    text = bytes(first.output + second.output)
    numbers = b"".join(b"%d\r\n" % n for n in range(100000, 200001))
    assert numbers in text


async def test_the_shell_outlives_the_server(site: Site) -> None:
    terminal = site.terminals.pop()
    async with browser(site, terminal) as page:
        await page.type("mark=kept; echo be''fore\r")
        await page.until(b"before")
        assert await asyncio.to_thread(site.stop) < 10
        await page.until_closed()
    site.start()
    async with browser(site, terminal) as page:
        await page.type("echo $mark-$((1+1))\r")
        await page.until(b"kept-2")
