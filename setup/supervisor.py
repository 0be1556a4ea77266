"""Keep the Procfile's parts running, show their output, and end them together.

honcho reads the Procfile and prints; running is ours, because honcho ends
everything as soon as one part ends, and a crashed part is to come back.
"""

import asyncio
import contextlib
import datetime
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from honcho.environ import parse_procfile
from honcho.printer import Message, Printer

# A part that ran this long was fine; its next crash is the first one again.
HEALTHY_S = 30.0
LONGEST_PAUSE_S = 30.0
# What a part gets to end by itself after SIGTERM, before SIGKILL.
GRACE_S = 10.0
COLOURS = ("36", "33", "32")
# The longest line of output that is printed in one piece.
LINE_BYTES = 1 << 20


class Part:
    """One line of the Procfile as a process that is started again when it ends."""

    def __init__(self, name: str, command: str, env: dict[str, str]) -> None:
        self.name = name
        self.env = env
        self.command = command
        self.crashes = 0
        self.colour: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Of the process as it runs now; None before the first start."""
        return self._process.pid if self._process else None

    async def keep(self, printer: Printer) -> None:
        """Run until `stop`; after each crash a longer pause."""
        while not self._stopping:
            started = time.monotonic()
            code = await self._run_once(printer)
            if self._stopping:
                return
            if time.monotonic() - started > HEALTHY_S:
                self.crashes = 0
            self.crashes += 1
            pause_s = min(2.0 ** (self.crashes - 1), LONGEST_PAUSE_S)
            self._print(printer, f"ended ({code}); again in {pause_s:.0f} s")
            await asyncio.sleep(pause_s)

    async def _run_once(self, printer: Printer) -> int:
        """Start it in a session of its own, print its lines, return its code."""
        self._process = await asyncio.create_subprocess_exec(
            *_dying_with_us(),
            "sh",
            "-c",
            self.command,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=LINE_BYTES,
        )
        async for line in _lines(self._process):
            self._print(printer, line)
        return await self._process.wait()

    async def stop(self) -> None:
        """End it: SIGTERM, and after GRACE_S SIGKILL for all it started.

        What a part leaves behind on purpose, as the runtime its sandboxes, stays.
        """
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GRACE_S)
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End it and all that runs in its session at once."""
        self._stopping = True
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _print(self, printer: Printer, text: str) -> None:
        now = datetime.datetime.now()
        # A reader that went away must not end the part, nor fill its pipe.
        with contextlib.suppress(OSError):
            printer.write(Message("line", text, now, self.name, self.colour))


class Supervisor:
    """All parts of one Procfile, started in any order and ended together."""

    def __init__(self, procfile: Path, printer: Printer) -> None:
        self.commands: dict[str, str] = parse_procfile(procfile.read_text()).processes
        self.printer = printer
        self.printer.width = max(map(len, self.commands))
        self.parts: dict[str, Part] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, env: dict[str, str]) -> Part:
        """Start the part of that name."""
        part = Part(name, self.commands[name], env)
        part.colour = COLOURS[len(self.parts) % len(COLOURS)]
        self.parts[name] = part
        self._tasks.append(asyncio.create_task(part.keep(self.printer)))
        return part

    async def stop(self) -> None:
        """End the parts, the last one started first, and wait until they are gone."""
        for part in reversed(self.parts.values()):
            await part.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _dying_with_us() -> list[str]:
    """A command prefix: the part gets SIGTERM even if the launcher is killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    """Each line of output, without its end; overlong ones in pieces."""
    assert process.stdout is not None
    while True:
        try:
            line = await process.stdout.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                yield error.partial.decode(errors="replace")
            return
        except asyncio.LimitOverrunError as error:
            line = await process.stdout.read(error.consumed)
        yield line.decode(errors="replace").rstrip("\r\n")
