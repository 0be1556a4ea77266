"""`./kode doctor`: a table of what is on this machine and what is missing."""

import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from setup import machine, tools

# (name, what was found or None, what it means when it is missing)
Row = tuple[str, str | None, str]


def run() -> int:
    """Print the table; exit code 0 when sandboxes can run, else 1."""
    rows = list(_rows())
    width = max(len(name) for name, _, _ in rows)
    for name, found, meaning in rows:
        mark, text = ("ok", found) if found else ("--", f"missing: {meaning}")
        print(f"{mark}  {name:<{width}}  {text}")
    lacking = machine.missing((*machine.RUNTIME, *machine.TESTS))
    if lacking:
        print(f"\nTo get the missing ones, run: {machine.install_command(lacking)}")
    if machine.sandboxes_possible() and importlib.util.find_spec("uvicorn"):
        print(f"\nSandboxes on this machine:\n{_probe()}")
    if machine.sandboxes_possible() or os.environ.get("E2B_API_KEY"):
        return 0
    print("\nNo sandbox can run here. Install crun, or set E2B_API_KEY.")
    return 1


def _probe() -> str:
    """What the local runtime says that it can give here."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        command = [sys.executable, "-m", "sandboxes.local", "doctor", "--root", root]
        done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()


def _rows() -> Iterator[Row]:
    yield "python", f"{platform.python_version()} ({sys.executable})", ""
    yield "system", f"{platform.platform()}, {os.cpu_count()} processors", ""
    node = tools.find_node()
    fetched = "fetched from PyPI when JavaScript must be built"
    yield "node >= 20", f"{node.version} ({node.node})" if node else None, fetched
    key = "set" if os.environ.get("E2B_API_KEY") else None
    yield "E2B_API_KEY", key, "only sandboxes on this machine"
    for part in (*machine.RUNTIME, *machine.TESTS):
        path = part.path()
        yield part.name, path and f"{_version(path)} ({path})", part.without


def _version(path: str) -> str:
    """The first line that the program says of itself; runtimes have CVEs too."""
    for flag in ("--version", "-V"):
        try:
            done = subprocess.run(
                [path, flag], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    return "version unknown"
