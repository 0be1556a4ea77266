"""What machines use, as their backend has measured it."""

from dataclasses import dataclass
from datetime import datetime

from sandboxes.models import Sandbox

from .backends import calling, options
from .prompt import promptly


@dataclass(frozen=True)
class Sample:
    """Use at a moment. `cpu_percent` is of all its `cpu_count` cores together."""

    at: datetime
    cpu_percent: float
    cpu_count: int
    memory_bytes: int
    memory_total_bytes: int
    disk_bytes: int
    disk_total_bytes: int


def metrics(
    sandbox: Sandbox, start: datetime | None = None, end: datetime | None = None
) -> list[Sample]:
    """The samples between two moments, oldest first. Raises Gone."""
    import e2b

    known_options = options(sandbox.backend)
    with calling(sandbox.backend, control=True):
        found = promptly(
            lambda: e2b.Sandbox.get_metrics(
                sandbox.sandbox_id, start=start, end=end, **known_options
            )
        )
    samples = [
        Sample(
            at=one.timestamp,
            cpu_percent=one.cpu_used_pct,
            cpu_count=one.cpu_count,
            memory_bytes=one.mem_used,
            memory_total_bytes=one.mem_total,
            disk_bytes=one.disk_used,
            disk_total_bytes=one.disk_total,
        )
        for one in found
    ]
    return sorted(samples, key=lambda sample: sample.at)
