"""A command by PID 1 of a sandbox, against a plain child: `bench.runtime` runs it."""

import subprocess
import time

from tests.local.isolated import Tracked, run

ARGV = ("/bin/echo", "hi")


async def box_and_plain(driver: Tracked, rounds: int) -> list[list[float]]:
    """Milliseconds of a command by PID 1 and of a plain child, interleaved.

    Both are started by the runtime's own process, with a pipe for their output.
    """
    box = await driver.box()
    by_pid1: list[float] = []
    plain: list[float] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        assert await run(box, ARGV) == (0, "hi\n")
        between = time.perf_counter()
        assert subprocess.run(ARGV, capture_output=True).stdout == b"hi\n"
        by_pid1.append((between - begun) * 1000)
        plain.append((time.perf_counter() - between) * 1000)
    return [by_pid1, plain]
