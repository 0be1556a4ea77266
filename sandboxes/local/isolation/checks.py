"""What the launcher accepts: it holds the privileges, so it trusts no argument.

The server might be taken over; a call of it may then reach its own sandboxes and
nothing else: an id is part of paths that root removes.
"""

import math
import re
from typing import Any

from sandboxes.local.contract import BoxSpec, Limits

SANDBOX_ID = re.compile(r"[a-z0-9]{1,40}", re.ASCII)
TEMPLATES = ("host", "base")
MAX_TIMEOUT_S = 366 * 86400.0
MAX_CPUS, MIN_MEMORY_MB, MAX_MEMORY_MB = 1024.0, 16, 1 << 24
MAX_PIDS, MAX_DISK_MB = 1 << 22, 1 << 30


def sandbox_id(value: Any) -> str:
    """An id that is one plain file name, or a snapshot's. Raises ValueError."""
    if not isinstance(value, str) or not SANDBOX_ID.fullmatch(value):
        raise ValueError("not an id")
    return value


def spec(given: dict[str, Any]) -> BoxSpec:
    """A BoxSpec from its fields. Raises ValueError, or KeyError for a missing one."""
    if given["template"] not in TEMPLATES:
        raise ValueError("no such base tree")
    return BoxSpec(
        sandbox_id=sandbox_id(given["sandbox_id"]),
        template=given["template"],
        timeout_s=_number(given["timeout_s"], 0.0, MAX_TIMEOUT_S),
        internet=given["internet"] is True,
        limits=limits(given["limits"]),
        snapshot=given["snapshot"] and sandbox_id(given["snapshot"]),
    )


def limits(given: dict[str, Any]) -> Limits:
    """Limits from their fields, within what a machine can have."""
    return Limits(
        cpus=_number(given["cpus"], 0.01, MAX_CPUS),
        memory_mb=int(_number(given["memory_mb"], MIN_MEMORY_MB, MAX_MEMORY_MB)),
        pids=int(_number(given["pids"], 2, MAX_PIDS)),
        disk_mb=int(_number(given["disk_mb"], 1, MAX_DISK_MB)),
    )


def _number(value: Any, least: float, most: float) -> float:
    number = float(value)
    if not math.isfinite(number) or not least <= number <= most:
        raise ValueError(f"{number} is not between {least} and {most}")
    return number
