"""How fast the local runtime is, through the unmodified SDK.

Run: .venv/bin/python -m bench.runtime [--rounds 20]
Prints medians in milliseconds. A plain subprocess on the host is timed in the same
rounds, interleaved, so that the ratios hold on a busy machine too.
"""

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from e2b import Sandbox

from bench.box import box_and_plain
from tests.local.isolated import start
from tests.local.server import Runtime, start_runtime

COMMAND = "true"


def timed(call: Callable[[], object]) -> float:
    """Milliseconds that one call takes."""
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1000


@contextlib.contextmanager
def created(runtime: Runtime, **options: object) -> Iterator[Sandbox]:
    """A sandbox that is killed at the end."""
    box = Sandbox.create(timeout=120, **runtime.sdk, **options)
    try:
        yield box
    finally:
        box.kill()


def create_to_output(runtime: Runtime) -> float:
    """From the create call to the first output of a command."""
    begun = time.perf_counter()
    box = Sandbox.create(timeout=120, **runtime.sdk)
    assert box.commands.run("echo hi").stdout == "hi\n"
    spent = (time.perf_counter() - begun) * 1000
    box.kill()
    return spent


def line(name: str, values: list[float], base: list[float] | None = None) -> str:
    """One row: median, 95th percentile and, with a base, the ratio of medians."""
    ordered = sorted(values)
    middle, high = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    ratio = f"{middle / statistics.median(base):8.2f}" if base else " " * 8
    return f"{name:34}{middle:9.1f}{high:9.1f}{ratio}"


def plain_subprocess() -> None:
    """The same command as an ordinary child, without this user's profile."""
    subprocess.run(["/bin/bash", "-l", "-c", COMMAND], env={"HOME": "/nonexistent"})


def idle_mb(runtime: Runtime) -> float:
    """Memory of one sandbox that does nothing, by its own accounting."""
    with created(runtime) as box:
        time.sleep(12)  # The file helper ends when it is not needed.
        return box.get_metrics()[-1].mem_used / (1 << 20)


def measure(runtime: Runtime, rounds: int) -> list[str]:
    """All rows of the table."""
    plain: list[float] = []
    execs: list[float] = []
    bursts: list[float] = []
    paced: list[float] = []
    with created(runtime) as box:
        box.commands.run(COMMAND)
        for _ in range(rounds):
            plain.append(timed(plain_subprocess))
            execs.append(timed(lambda: box.commands.run(COMMAND)))
    for _ in range(rounds):
        bursts.append(create_to_output(runtime))
    for _ in range(rounds):
        time.sleep(0.6)  # Time for the pool to make the next one.
        paced.append(create_to_output(runtime))
    idle = idle_mb(runtime)
    return [
        f"{'idle sandbox, MB':34}{idle:9.1f}",
        line("plain subprocess (bash -lc)", plain),
        line("exec round trip by the SDK", execs, plain),
        line("create to first output, in a row", bursts, plain),
        line("create to first output, one at a time", paced, plain),
    ]


def main() -> None:
    """Start a runtime of its own, measure, print, end it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=20)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory() as root:
        runtime = start_runtime(Path(root))
        try:
            rows = measure(runtime, rounds)
        finally:
            runtime.stop()
        isolated = start(Path(root) / "isolated")
        try:
            by_pid1, bare = isolated.run(box_and_plain, rounds * 10)
        finally:
            isolated.end()
    rows.append(line("plain subprocess (echo)", bare))
    rows.append(line("runtime to PID 1 and back", by_pid1, bare))
    print(f"{'ms, ' + str(rounds) + ' rounds':34}{'median':>9}{'p95':>9}{'ratio':>8}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
