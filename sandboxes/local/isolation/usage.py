"""What a sandbox uses: by its cgroup, or by its processes where it has none."""

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from . import cgroups

DISK_AGE_S = 20.0
DISK_LIMIT_S = 5.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Processor seconds since its start, bytes and processes with threads now."""

    cpu_s: float
    memory: int
    cache: int
    processes: int


def of_cgroup(cgroup: str) -> Usage:
    """The kernel's own accounting."""
    used, cache = cgroups.memory(cgroup)
    count = cgroups.processes(cgroup)
    return Usage(cgroups.cpu_used_s(cgroup), used, cache, count)


def of_namespace(pid: int) -> Usage:
    """Sums over the processes in the PID namespace of `pid`.

    Shared pages count for each; processor time includes ended children that were
    waited for. Raises OSError where we may not look: an ordinary user's runtime is
    of another user namespace than the one before it.
    """
    ours, ticks, pages, threads = os.readlink(f"/proc/{pid}/ns/pid"), 0, 0, 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and _namespace(int(name)) == ours:
            with contextlib.suppress(OSError, IndexError):
                line = Path(f"/proc/{name}/stat").read_text()
                words = line.rpartition(")")[2].split()
                ticks += sum(map(int, words[11:15]))
                threads += int(words[17])
                pages += int(words[21])
    return Usage(ticks / TICKS, pages * PAGE_BYTES, 0, threads)


def _namespace(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


class Disk:
    """Bytes of a folder, measured at most every DISK_AGE_S."""

    def __init__(self) -> None:
        self._at, self._bytes = float("-inf"), 0
        self._lock = asyncio.Lock()

    async def measure(self, folder: Path) -> int:
        """The figure; the one before where measuring takes too long."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if loop.time() - self._at > DISK_AGE_S:
                self._bytes = await _du(folder, self._bytes)
                self._at = loop.time()
            return self._bytes


async def _du(folder: Path, default: int) -> int:
    process = await asyncio.create_subprocess_exec(
        "du",
        "-sx",
        "--block-size=1",
        str(folder),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), DISK_LIMIT_S)
        return int(output.split()[0])
    except (TimeoutError, IndexError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return default
