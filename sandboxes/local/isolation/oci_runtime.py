"""Calls of crun (or runc) with nothing of our environment."""

import asyncio
import os
import shutil
from pathlib import Path

from .oci import PATH


class OciRuntime:
    """The container runtime of this machine, with its state in one folder."""

    def __init__(self, state: Path, log: Path) -> None:
        self._program = shutil.which("crun") or shutil.which("runc") or ""
        self._state, self._log = state, log

    async def call(self, *words: str, inherit: int | None = None) -> str:
        """Run a command of it; what it printed. Raises OSError with its words.

        `inherit` becomes the container's descriptor 3, with --preserve-fds=1.
        """
        command = [self._program, f"--root={self._state}", f"--log={self._log}"]
        if self._program.endswith("crun"):
            command.append("--cgroup-manager=cgroupfs")
        try:
            return await _run([*command, *words], inherit)
        except OSError as error:
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
        code = await _ended(pid)
        text = os.pread(output, 1 << 20, 0).decode(errors="replace")
    finally:
        os.close(output)
        os.close(null)
    if code:
        raise OSError(f"{Path(command[0]).name} {code}: {text.strip()[-300:]}")
    return text


async def _ended(pid: int) -> int:
    """The exit code of a child of ours, without a thread or a signal handler."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)
    done = loop.create_future()
    loop.add_reader(descriptor, lambda: done.done() or done.set_result(None))
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
