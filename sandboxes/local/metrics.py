"""Samples of one sandbox's use, and its log lines: the latest, in memory."""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from .contract import BoxStats
from .records import iso

SAMPLE_S = 5.0
SAMPLES = 720  # an hour
LINES = 1000


@dataclass(frozen=True)
class Sample:
    """Use at a moment; `cpu_percent` is of all the sandbox's cores."""

    at_s: float
    cpu_percent: float
    stats: BoxStats

    def wire(self, cpus: float) -> dict[str, Any]:
        return {
            "timestamp": iso(self.at_s),
            "timestampUnix": int(self.at_s),
            "cpuCount": round_cpus(cpus),
            "cpuUsedPct": round(self.cpu_percent, 2),
            "memUsed": self.stats.memory_used,
            "memTotal": self.stats.memory_total,
            "memCache": self.stats.memory_cache,
            "diskUsed": self.stats.disk_used,
            "diskTotal": self.stats.disk_total,
        }


class Samples:
    """A ring of samples."""

    def __init__(self, cpus: float) -> None:
        self._cpus = cpus
        self._ring: deque[Sample] = deque(maxlen=SAMPLES)

    def add(self, stats: BoxStats, now_s: float) -> None:
        """Keep a sample; processor use is since the one before."""
        percent = 0.0
        if self._ring:
            last = self._ring[-1]
            passed = max(now_s - last.at_s, 0.001)
            used = max(stats.cpu_used_s - last.stats.cpu_used_s, 0.0)
            percent = min(100.0 * used / (passed * self._cpus), 100.0)
        self._ring.append(Sample(now_s, percent, stats))

    @property
    def last_s(self) -> float:
        return self._ring[-1].at_s if self._ring else 0.0

    def between(self, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """In order of time; both ends count, in whole seconds."""
        return [
            sample.wire(self._cpus)
            for sample in self._ring
            if start_s <= int(sample.at_s) <= end_s
        ]


@dataclass(frozen=True)
class Line:
    """A log line of the runtime about a sandbox."""

    at_s: float
    message: str
    level: str = "info"

    def wire(self) -> dict[str, Any]:
        return {
            "timestamp": iso(self.at_s),
            "message": self.message,
            "level": self.level,
            "fields": {},
        }


class Log:
    """A ring of log lines, in order of time."""

    def __init__(self) -> None:
        self._ring: deque[Line] = deque(maxlen=LINES)

    def add(self, message: str) -> None:
        self._ring.append(Line(time.time(), message))

    def since(self, cursor_s: float, limit: int, *, backward: bool) -> list[Line]:
        """Up to `limit` lines from a moment on, or back from it, newest first."""
        if backward:
            lines = [line for line in reversed(self._ring) if line.at_s <= cursor_s]
        else:
            lines = [line for line in self._ring if line.at_s >= cursor_s]
        return lines[:limit]


def round_cpus(cpus: float) -> int:
    """Cores as the wire has them: whole, at least one."""
    return max(1, round(cpus))
