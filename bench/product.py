"""Kode Web, started as a person starts it, for a benchmark to talk to."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
# Prints a session's cookie, and a sandbox with a new terminal, as JSON.
PREPARE = """
import json, time
from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest
from django.contrib.sessions.backends.db import SessionStore
from kode_web.teams import accounts, access
from sandboxes import actions, shells
from sandboxes.models import Sandbox
user = accounts.first_admin()
request = HttpRequest()
request.session = SessionStore()
login(request, user, "django.contrib.auth.backends.ModelBackend")
request.session.save()
team = access.own_team(user)
wanted = actions.CreateRequest(name="bench")
sandbox = actions.create(user, team, wanted, key="bench")
while not sandbox.is_running:
    time.sleep(0.05)
    sandbox.refresh_from_db()
terminal = shells.create_row(sandbox, user)
cookie = f"{settings.SESSION_COOKIE_NAME}={request.session.session_key}"
print("JSON" + json.dumps([cookie, sandbox.code, terminal.code]))
"""


@dataclass
class Product:
    """Where it serves; `data` is its folder."""

    data: Path
    url: str
    port: int
    pid: int
    runtime_url: str = ""
    link: str = ""
    cookie: str = ""

    def env(self) -> dict[str, str]:
        """What a management command needs to work on the same data."""
        return {
            "KODE_DATA": str(self.data),
            "KODE_SITE_URL": self.url,
            "KODE_RUNTIME_URL": self.runtime_url,
            "KODE_RUNTIME_KEY_FILE": str(self.data / "runtime.key"),
        }

    def web_pid(self) -> int:
        """Pid of the web process."""
        pids = self.server_pids()
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
        return next(pid for pid in pids if b"uvicorn" in commands[pid])

    def new_terminal(self) -> tuple[str, str]:
        """Codes of the sandbox and of a new terminal of it."""
        done = subprocess.run(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", PREPARE],
            cwd=ROOT,
            env=os.environ | self.env(),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.cookie, code, terminal = json.loads(done.stdout.partition("JSON")[2])
        return code, terminal

    def end_sandboxes(self) -> None:
        """Kill the sandboxes, which would outlive the product."""
        headers = {"X-API-KEY": (self.data / "runtime.key").read_text().strip()}
        found = httpx.get(f"{self.runtime_url}/v2/sandboxes", headers=headers).json()
        for row in found:
            url = f"{self.runtime_url}/sandboxes/{row['sandboxID']}"
            httpx.delete(url, headers=headers, timeout=60)

    def server_pids(self) -> list[int]:
        """Pids of the web process and of the runtime."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal():
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    parts = (b"uvicorn kode_web", b"-m sandboxes.local")
                    here = f"{self.port}".encode() in words or bytes(self.data) in words
                    if here and any(part in words for part in parts):
                        found.append(int(entry.name))
        return found


@contextlib.contextmanager
def running_product(data: Path) -> Iterator[Product]:
    """Start it on free ports; everything it started ends with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "setup", "up", "--port", "0", "--data", str(data)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        runtime = ""
        for line in process.stdout:
            if found := re.search(r'"api_url": "([^"]+)"', line):
                runtime = found[1]
            if found := re.search(r"(http://localhost:(\d+))/accounts/link/\S+", line):
                port = int(found[2])
                product = Product(data, found[1], port, process.pid, runtime, found[0])
                break
        else:
            raise RuntimeError("Kode Web did not start")
        # What it prints must go somewhere, or it waits.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield product
        product.end_sandboxes()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
