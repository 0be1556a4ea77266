"""Starts a local runtime of its own for tests, in plain Python.

    runtime = start_runtime(Path("/tmp/some-root"))
    Sandbox.create(**runtime.sdk)
    runtime.stop()

Needs what the runtime needs (crun, root or user namespaces). `stop` ends the
sandboxes made by this runtime, and the runtime.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60.0
STOP_S = 20.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `json` is None when the body is not JSON."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass
class Runtime:
    """A running runtime and where it serves."""

    root: Path
    options: tuple[str, ...]
    process: subprocess.Popen[str]
    port: int = 0
    api_url: str = ""
    sandbox_url: str = ""
    domain: str = ""
    pid: int = 0
    api_key: str = field(default="", repr=False)

    @property
    def sdk(self) -> dict[str, Any]:
        """The connection options of every `e2b` call."""
        return {
            "api_key": self.api_key,
            "api_url": self.api_url,
            "sandbox_url": self.sandbox_url,
        }

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        key: bool = True,
    ) -> Answer:
        """A plain HTTP request to the runtime, with the API key unless refused."""
        given = {"X-API-KEY": self.api_key} if key else {}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            given["Content-Type"] = "application/json"
        return fetch(method, self.api_url + path, data, given | (headers or {}))

    def restart(self, sign: int = signal.SIGKILL) -> None:
        """End the runtime and start another on the same root and port."""
        self.end(sign)
        self.process = launch(self.root, self.port, self.options)
        self.announce()

    def end(self, sign: int = signal.SIGTERM) -> int:
        """End the runtime and leave its sandboxes; its exit code."""
        if self.process.poll() is None:
            os.kill(self.pid, sign)
        try:
            return self.process.wait(STOP_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()

    def stop(self) -> None:
        """End its sandboxes and itself."""
        if self.process.poll() is None:
            for sandbox in self.call("GET", "/v2/sandboxes").json:
                self.call("DELETE", f"/sandboxes/{sandbox['sandboxID']}")
        self.end()

    def announce(self) -> None:
        """Read the line that the runtime prints when it serves."""
        stdout = self.process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], START_S)
        line = stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            self.end()
            log = (self.root / "runtime.log").read_text()[-4000:]
            raise RuntimeError(f"the runtime did not start:\n{log}")
        found = json.loads(line)
        self.api_url, self.sandbox_url = found["api_url"], found["sandbox_url"]
        self.domain, self.pid = found["domain"], found["pid"]
        self.port = int(self.api_url.rpartition(":")[2])
        self.api_key = (self.root / "api-key").read_text().strip()


def fetch(method: str, url: str, data: bytes | None, headers: dict[str, str]) -> Answer:
    """One HTTP request; an error status is an answer like any other."""
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as problem:
        with problem:
            return Answer(problem.code, dict(problem.headers), problem.read())


def launch(root: Path, port: int, options: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start the program; its log goes to `runtime.log` in the root."""
    command = [sys.executable, "-m", "sandboxes.local", "--port", str(port)]
    command += ["--root", str(root), "--api-key-file", str(root / "api-key")]
    with (root / "runtime.log").open("a") as log:
        return subprocess.Popen(
            [*command, *options],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def start_runtime(root: Path, *options: str) -> Runtime:
    """Start a runtime on a free port with its state in `root`; returns once ready."""
    root.mkdir(parents=True, exist_ok=True)
    runtime = Runtime(root, options, launch(root, 0, options))
    runtime.announce()
    return runtime


def wait_for(condition: Any, seconds: float = 10.0) -> Any:
    """The first true value of `condition()`, asked again and again."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{condition} stayed false for {seconds} s")
        time.sleep(0.02)
    return value
