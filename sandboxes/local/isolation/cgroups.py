"""Limits' accounting: where a sandbox's cgroup is and what it has used.

Version 1, 2 and hybrid hosts differ only in where a figure stands.
"""

import os
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
V1_CONTROLLERS = ("memory", "cpu", "pids", "freezer")


def version() -> str:
    """`v2`, `hybrid`, `v1` or `none`, as this host mounts them."""
    if (MOUNT / "cgroup.controllers").exists():
        return "v2"
    if (MOUNT / "unified" / "cgroup.controllers").exists():
        return "hybrid"
    return "v1" if (MOUNT / "memory").is_dir() else "none"


def can_limit() -> bool:
    """Whether this process may make cgroups that limit."""
    if version() == "v2":
        return os.access(MOUNT, os.W_OK)
    if version() == "none":
        return False
    return all(os.access(MOUNT / name, os.W_OK) for name in V1_CONTROLLERS)


def cpu_used_s(cgroup: str) -> float:
    """Seconds of all cores together, 0 where nothing is counted."""
    nanoseconds = _number(MOUNT / "cpuacct" / cgroup / "cpuacct.usage")
    if nanoseconds:
        return nanoseconds / 1e9
    return _field(MOUNT / cgroup / "cpu.stat", "usage_usec") / 1e6


def memory(cgroup: str) -> tuple[int, int]:
    """Bytes in use and bytes of them that are cache."""
    v1 = MOUNT / "memory" / cgroup
    if v1.is_dir():
        cache = _field(v1 / "memory.stat", "cache")
        return _number(v1 / "memory.usage_in_bytes"), cache
    v2 = MOUNT / cgroup
    return _number(v2 / "memory.current"), _field(v2 / "memory.stat", "file")


def processes(cgroup: str) -> int:
    """How many processes and threads live in it."""
    v1 = MOUNT / "pids" / cgroup / "pids.current"
    return _number(v1) or _number(MOUNT / cgroup / "pids.current")


def is_frozen(cgroup: str) -> bool:
    """Whether every process of it stands still; that takes a while after the order."""
    v1 = MOUNT / "freezer" / cgroup / "freezer.state"
    if v1.exists():
        return v1.read_text().strip() == "FROZEN"
    return _field(MOUNT / cgroup / "cgroup.events", "frozen") == 1


def counts_swap() -> bool:
    """Whether a limit may say that memory is not to be swapped."""
    if version() == "v2":
        return any(MOUNT.glob("*/memory.swap.max"))
    return (MOUNT / "memory" / "memory.memsw.limit_in_bytes").exists()


def remove(cgroup: str) -> None:
    """Remove what a killed sandbox's cgroup left; full ones stay."""
    folders = [MOUNT / cgroup]
    if MOUNT.is_dir():
        folders += [MOUNT / part.name / cgroup for part in MOUNT.iterdir()]
    for folder in folders:
        for path in (*sorted(folder.rglob("*"), reverse=True), folder):
            if path.is_dir():
                try:
                    path.rmdir()
                except OSError:
                    continue


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in lines if x.split()[:1] == [name]), 0)
