"""Calls of crun (or runc) with nothing of our environment."""

import asyncio
import contextlib
import json
import os
import select
import shutil
from pathlib import Path

from .oci import PATH

RUNTIMES = ("crun", "runc")
_waited: set[int] = set()  # children that somebody waits for


class OciRuntime:
    """The container runtime of this machine, with its state in one folder."""

    def __init__(self, state: Path, log: Path) -> None:
        program = shutil.which("crun", path=PATH) or shutil.which("runc", path=PATH)
        self._program = program or ""
        self._state, self._log = state, log
        self.limited = False  # whether it makes cgroups

    @property
    def covers_proc(self) -> bool:
        """Whether it mounts files of ours in /proc; runc refuses most."""
        return self._program.endswith("crun")

    async def all(self) -> dict[str, tuple[str, int]]:
        """State (running, paused, stopped) and pid here of each container, by id."""
        listed = json.loads(await self.call("list", "--format", "json") or "null")
        return {
            entry["id"]: (entry["status"], int(entry["pid"])) for entry in listed or ()
        }

    async def call(self, *words: str, inherit: int | None = None) -> str:
        """Run a command of it; what it printed. Raises OSError with its words.

        `inherit` becomes the container's descriptor 3, with --preserve-fds=1.
        """
        command = [self._program, f"--root={self._state}", f"--log={self._log}"]
        if self.covers_proc:
            manager = "cgroupfs" if self.limited else "disabled"
            command.append(f"--cgroup-manager={manager}")
        try:
            return await _run([*command, *words], inherit)
        except OSError as error:
            # The last words of the log; of calls at the same time, one of them.
            lines = self._log.read_text(errors="replace").strip().splitlines()
            detail = lines[-1] if lines else ""
            raise OSError(f"{error} {detail}".strip()) from error


async def _run(command: list[str], inherit: int | None) -> str:
    """Spawn with `inherit` as descriptor 3 and /dev/null as standard input.

    Output goes to a file; a container that stays gets /dev/null, and crun's
    words its log.
    """
    output = os.memfd_create("output")
    null = os.open("/dev/null", os.O_RDWR)
    shown = output if inherit is None else null
    actions: list[tuple[int, int, int]] = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, shown, 1),
        (os.POSIX_SPAWN_DUP2, shown, 2),
    ]
    if inherit is not None:
        actions.append((os.POSIX_SPAWN_DUP2, inherit, 3))
    try:
        environment = {"PATH": PATH}
        pid = os.posix_spawn(command[0], command, environment, file_actions=actions)
        # Waited for even if nobody wants it: a container half made is no use.
        code = await asyncio.shield(asyncio.ensure_future(_ended(pid)))
        text = os.pread(output, 1 << 20, 0).decode(errors="replace")
    finally:
        os.close(output)
        os.close(null)
    if code:
        raise OSError(f"{Path(command[0]).name} {code}: {text.strip()[-300:]}")
    return text


async def _ended(pid: int) -> int:
    """The exit code of a child of ours, without a thread or a signal handler."""
    process = os.pidfd_open(pid)
    _waited.add(pid)
    try:
        await end_of(process)
    finally:
        os.close(process)
        _waited.discard(pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    reap_orphans()
    return code


def reap_orphans() -> None:
    """Collect what the container runtime left behind: we adopt it.

    Of others' children nothing: who waits for them needs their exit code.
    """
    for child in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, child.read_text().split()):
            with contextlib.suppress(OSError):
                name, state = _name_and_state(pid)
                if state == "Z" and name in RUNTIMES and pid not in _waited:
                    os.waitpid(pid, os.WNOHANG)


def _name_and_state(pid: int) -> tuple[str, str]:
    head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return head.partition("(")[2], tail.split()[0]


async def end_of(process: int) -> None:
    """Return when the process of a pidfd has ended."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(process, wake)
    try:
        await done
    finally:
        loop.remove_reader(process)


def has_ended(process: int) -> bool:
    """Whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))
