"""Runs test bodies in a process of their own that holds a real isolation driver.

The driver gives up root for good, so it cannot live in pytest's process. A body is
a coroutine function of a module; `@inside` makes it a test:

    @inside
    async def test_exit_code(driver: Tracked) -> None: ...

Run as a program it is that process: a line `{"module", "name", "arguments"}` of JSON
in, a line `{"value"}` or `{"error"}` out.
"""

import asyncio
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sandboxes.local import isolation
from sandboxes.local.contract import Box, BoxSpec, Identity, IsolationUnavailable
from sandboxes.local.contract import Limits as Limits

REPOSITORY = Path(__file__).resolve().parents[2]
ANSWER_S = 90.0
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/"}
ROOT, USER = Identity(0, 0), Identity(1000, 1000, (1000,))
Body = Callable[..., Awaitable[Any]]


class Tracked:
    """A driver that ends what a body has made, and short forms for bodies."""

    def __init__(self, driver: isolation.LocalDriver) -> None:
        self.driver = driver
        self.boxes: list[Box] = []

    async def box(
        self,
        name: str = "",
        *,
        template: str = "host",
        internet: bool = False,
        timeout_s: float = 120.0,
        limits: Limits | None = None,
    ) -> Box:
        """A new sandbox, without a network unless asked for."""
        name = name or f"t{os.urandom(8).hex()}"
        limits = limits or Limits()
        spec = BoxSpec(name, template, timeout_s, internet, limits)
        self.boxes.append(await self.driver.create(spec))
        return self.boxes[-1]

    async def end(self) -> None:
        for box in self.boxes:
            await box.kill()
        self.boxes.clear()


async def run(
    box: Box, argv: Sequence[str] | str, identity: Identity = ROOT, cwd: str = "/"
) -> tuple[int, str]:
    """Exit code and output of a command, or of a line for bash."""
    if isinstance(argv, str):
        argv = ("/bin/bash", "-c", argv)
    ours, theirs = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    try:
        fds = [null, theirs, theirs]
        pid = await box.spawn(argv, identity=identity, env=ENV, cwd=cwd, fds=fds)
    finally:
        os.close(theirs)
        os.close(null)
    text = await asyncio.to_thread(read_all, ours)
    return await box.wait(pid), text


async def python(box: Box, program: str, identity: Identity = ROOT) -> str:
    """Output of a program in the sandbox's private Python."""
    code, text = await run(box, (*isolation.PYTHON_ARGV, "-c", program), identity)
    assert code == 0, text
    return text.strip()


def read_all(descriptor: int) -> str:
    with open(descriptor, "rb") as file:
        return file.read().decode(errors="replace")


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{condition} stayed false for {seconds} s"
        await asyncio.sleep(0.02)
    return value


class Isolated:
    """The process, as pytest sees it."""

    def __init__(self, root: Path, environment: dict[str, str] | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.log = root.parent / f"{root.name}.log"
        ours, theirs = socket.socketpair()
        self._socket, self._file = ours, ours.makefile("r")
        with self.log.open("a") as log, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.local.isolated", str(root)],
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
                stdin=theirs,
                stdout=log,
                stderr=log,
            )
        self.unavailable: str | None = self._answer()["value"]

    def run(self, body: Body, *arguments: Any) -> Any:
        """Let it run a body; its value, which JSON can hold."""
        name = getattr(body, "body_name", body.__name__)
        request = {"module": body.__module__, "name": name, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        answer = self._answer()
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def launcher(self) -> int:
        """The pid of the process with the privileges."""
        pid = self.process.pid
        path = Path(f"/proc/{pid}/task/{pid}/children")
        return int(path.read_text().split()[0])

    def end(self, sign: int = signal.SIGTERM) -> None:
        """End it with its launcher; sandboxes of no body that ended live on."""
        launcher = self.launcher() if self.process.poll() is None else 0
        self.process.send_signal(sign)
        self.process.wait(20)
        self._file.close()
        self._socket.close()
        end = time.monotonic() + 20
        while launcher and Path(f"/proc/{launcher}/exe").exists():
            assert time.monotonic() < end, "the launcher lives on"
            time.sleep(0.02)

    def _answer(self) -> dict[str, Any]:
        ready, _, _ = select.select([self._socket], [], [], ANSWER_S)
        line = self._file.readline() if ready else ""
        assert line, f"no answer; log:\n{self.log.read_text()[-3000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer


def inside(body: Body) -> Callable[[Isolated], None]:
    """Make a test of a body: it runs in the process of the fixture `isolated`."""

    @functools.wraps(body)
    def test(isolated: Isolated) -> None:
        isolated.run(body)

    del test.__wrapped__  # pytest would take the body's parameters
    test.body = body  # type: ignore[attr-defined]
    return test


def start(root: Path, environment: dict[str, str] | None = None) -> Isolated:
    """Start the process, or skip the test where nothing can be isolated."""
    isolated = Isolated(root, environment)
    if isolated.unavailable:
        isolated.end()
        pytest.skip(f"no isolation on this machine: {isolated.unavailable}")
    return isolated


async def _one(driver: Tracked, request: dict[str, Any]) -> dict[str, Any]:
    found = getattr(importlib.import_module(request["module"]), request["name"])
    body = getattr(found, "body", found)
    try:
        return {"value": await body(driver, *request["arguments"])}
    except (Exception, pytest.fail.Exception):
        return {"error": traceback.format_exc()}
    finally:
        await driver.end()


async def _serve(driver: isolation.LocalDriver) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=0))
    await driver.start()
    try:
        await driver.survivors()
        first: dict[str, Any] = {"value": None}
    except IsolationUnavailable as problem:
        first = {"value": str(problem)}
    writer.write(json.dumps(first).encode() + b"\n")
    tracked = Tracked(driver)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    stopping = asyncio.ensure_future(stopped.wait())
    while True:
        reading = asyncio.ensure_future(reader.readline())
        await asyncio.wait({reading, stopping}, return_when="FIRST_COMPLETED")
        if stopped.is_set() or not (line := reading.result()):
            break
        answer = await _one(tracked, json.loads(line))
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    reading.cancel()
    await driver.close()


def main() -> None:
    try:
        driver = isolation.launch(Path(sys.argv[1]))
    except IsolationUnavailable as problem:
        os.write(0, json.dumps({"value": str(problem)}).encode() + b"\n")
        return
    asyncio.run(_serve(driver))


if __name__ == "__main__":
    main()
