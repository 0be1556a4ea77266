"""Terminals inside a sandbox, driven by the unmodified SDK."""

import asyncio
import contextlib
import threading
import time

import pytest
from e2b import AsyncSandbox, PtySize, Sandbox
from e2b.exceptions import SandboxException

from .server import wait_for


class Screen:
    """Collects a terminal's output in a thread."""

    def __init__(self, handle) -> None:  # type: ignore[no-untyped-def]
        self.text = b""
        self.ended = threading.Event()
        self._handle = handle
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(SandboxException):  # the sandbox may end first
            for _, _, data in self._handle:
                self.text += data or b""
        self.ended.set()

    def shows(self, text: bytes) -> None:
        wait_for(lambda: text in self.text)


def test_terminal_is_one(sandbox: Sandbox) -> None:
    handle = sandbox.pty.create(PtySize(rows=30, cols=100), timeout=0)
    screen = Screen(handle)
    sandbox.pty.send_stdin(handle.pid, b"tty; stty size; echo $TERM; id -un\r")
    screen.shows(b"/dev/pts/")
    screen.shows(b"30 100")
    screen.shows(b"xterm-256color")
    screen.shows(b"\r\nuser\r\n")
    sandbox.pty.resize(handle.pid, PtySize(rows=12, cols=34))
    sandbox.pty.send_stdin(handle.pid, b"stty size\r")
    screen.shows(b"12 34")
    sandbox.pty.send_stdin(handle.pid, b"exit 5\r")
    assert screen.ended.wait(10)


def test_control_c_reaches_the_foreground(sandbox: Sandbox) -> None:
    handle = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=0)
    screen = Screen(handle)
    sandbox.pty.send_stdin(handle.pid, b"sleep 1000\r")
    screen.shows(b"sleep 1000")
    time.sleep(0.3)
    sandbox.pty.send_stdin(handle.pid, b"\x03")
    screen.shows(b"^C")
    sandbox.pty.send_stdin(handle.pid, b"echo ba''ck\r")
    screen.shows(b"back")


def test_connect_sees_what_comes_after(sandbox: Sandbox) -> None:
    first = sandbox.pty.create(PtySize(rows=24, cols=80), timeout=0)
    first.disconnect()
    second = Screen(sandbox.pty.connect(first.pid, timeout=0))
    sandbox.pty.send_stdin(first.pid, b"echo jo''ined\r")
    second.shows(b"joined")
    assert sandbox.pty.kill(first.pid) is True
    assert second.ended.wait(10)
    assert sandbox.pty.kill(first.pid) is False


def test_pipes_are_no_terminal(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("sleep 5", background=True)
    with pytest.raises(SandboxException, match="tty not assigned"):
        sandbox.pty.resize(handle.pid, PtySize(rows=1, cols=1))
    with pytest.raises(SandboxException, match="tty not assigned"):
        sandbox.pty.send_stdin(handle.pid, b"x")


async def test_stream_of_keys_echoes_at_once(box: AsyncSandbox) -> None:
    seen: list[bytes] = []
    size = PtySize(rows=24, cols=80)
    handle = await box.pty.create(size, on_data=seen.append, timeout=0)
    keys = box.pty.stream_input(handle.pid)

    async def until(wanted: bytes) -> None:
        async with asyncio.timeout(20):
            while wanted not in b"".join(seen):
                await asyncio.sleep(0.01)

    # What is typed while the shell changes the terminal's mode is echoed otherwise.
    await keys.send(b"echo re''ady; cat\r")
    await until(b"ready")
    for letter in b"abcdefgh":
        await keys.send(bytes([letter]))
    await until(b"abcdefgh")
    await keys.close()
    assert await handle.kill()
