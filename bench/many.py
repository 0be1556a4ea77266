"""Many open terminals on one web process: what an idle one costs there.

Run: .venv/bin/python -m bench.many [--terminals 200]

Each is a real shell in a real sandbox, followed by a browser's socket; sandboxes
and people are as many as the limits of each ask for. The last line is the echo of
one terminal while all the others are open.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from websockets.asyncio.client import connect

from bench.product import ROOT, Product, running_product
from bench.terminal import Ours, cpu_s, echo_ms, memory_mb, until

EACH = 20  # terminals of one sandbox, and sockets of one person
IDLE_S = 10.0
# Makes people, sandboxes and terminals; prints [cookie, sandbox, terminal] rows.
PREPARE = """
import json, sys, time
from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest
from django.contrib.sessions.backends.db import SessionStore
from kode_web.teams import access, accounts
from kode_web.teams.models import Membership, Role, User
from sandboxes import actions, shells
from sandboxes.models import Sandbox
admin = accounts.first_admin()
team = access.own_team(admin)
rows = []
for number in range(COUNT):
    user = User.objects.create_user(email=f"p{number}@example.com", password=None)
    Membership.objects.create(team=team, user=user, role=Role.ADMIN)
    request = HttpRequest()
    request.session = SessionStore()
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    request.session.save()
    wanted = actions.CreateRequest(name=f"many-{number}")
    sandbox = actions.create(user, team, wanted, key=f"many-{number}")
    while not sandbox.is_running:
        time.sleep(0.05)
        sandbox.refresh_from_db()
    cookie = f"{settings.SESSION_COOKIE_NAME}={request.session.session_key}"
    for _ in range(EACH):
        rows.append([cookie, sandbox.code, shells.create_row(sandbox, user).code])
print("JSON" + json.dumps(rows))
"""


def prepared(product: Product, count: int) -> list[tuple[str, str, str]]:
    """(cookie, sandbox, terminal) of so many terminals."""
    code = PREPARE.replace("COUNT", str(-(-count // EACH))).replace("EACH", str(EACH))
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
        cwd=ROOT,
        env=os.environ | product.env(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.partition("JSON")[2])[:count]


async def opened(
    product: Product, row: tuple[str, str, str], stack: contextlib.AsyncExitStack
) -> Ours:
    """A terminal whose shell has answered."""
    cookie, sandbox, terminal = row
    path = f"/ws/sandboxes/{sandbox}/terminals/{terminal}/"
    socket = await stack.enter_async_context(
        connect(
            f"ws://localhost:{product.port}{path}",
            additional_headers={"Cookie": cookie, "Host": f"localhost:{product.port}"},
            origin=product.url,
            compression=None,
            proxy=None,
            open_timeout=60,
        )
    )
    shell = Ours(socket)
    await shell.type("echo re''ady\r")
    await until(shell, b"ready")
    return shell


async def measure(product: Product, rows: list[tuple[str, str, str]]) -> None:
    """Open all, print what they cost."""
    web = product.web_pid()
    async with contextlib.AsyncExitStack() as stack:
        first = await opened(product, rows[0], stack)
        alone = statistics.median(await echo_ms(first))
        before, begun = memory_mb(web), time.perf_counter()
        for row in rows[1:]:
            await opened(product, row, stack)
        seconds = time.perf_counter() - begun
        grown = (memory_mb(web) - before) / (len(rows) - 1) * 1024
        spent = cpu_s([web])
        await asyncio.sleep(IDLE_S)
        idle = (cpu_s([web]) - spent) / IDLE_S * 100
        together = statistics.median(await echo_ms(first))
    print(f"{'terminals':40}{len(rows):9}")
    print(f"{'opened one after another, each, ms':40}{seconds / len(rows) * 1e3:9.1f}")
    print(f"{'memory of the web process, each, kB':40}{grown:9.1f}")
    print(f"{'its CPU while all are idle, %':40}{idle:9.1f}")
    print(f"{'echo alone, ms':40}{alone:9.2f}")
    print(f"{'echo among all, ms':40}{together:9.2f}{together / alone:8.2f}")


def main() -> None:
    """Start the product, open terminals, print, end everything."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--terminals", type=int, default=200)
    count = options.parse_args().terminals
    with (
        tempfile.TemporaryDirectory() as data,
        running_product(Path(data)) as product,
    ):
        asyncio.run(measure(product, prepared(product, count)))


if __name__ == "__main__":
    main()
