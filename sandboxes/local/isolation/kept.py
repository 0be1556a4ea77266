"""What the launcher knows of a sandbox, and keeps for one that comes later."""

import asyncio
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sandboxes.local.contract import Limits

from .usage import Disk


@dataclass
class Kept:
    """The content of `box.json`. `tree` and `python` are folders' names, `pid` is
    PID 1's here, `number` its place on the router's network, `layers` the snapshots
    that it stands on, the nearest first."""

    tree: str
    python: str
    slot: int
    limits: Limits
    pid: int = 0
    number: int | None = None
    layers: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> "Kept | None":
        """None where there is none: the sandbox was never finished."""
        try:
            data = json.loads((folder / "box.json").read_text())
            return cls(**{**data, "limits": Limits(**data["limits"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, folder: Path) -> None:
        """All of it or, after a crash, what was there before."""
        draft = folder / "box.json.new"
        draft.write_text(json.dumps(asdict(self)))
        draft.rename(folder / "box.json")


@dataclass
class Live:
    """A sandbox of this launcher; `process` is the pidfd of its PID 1."""

    kept: Kept
    process: int = -1
    paused: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    disk: Disk = field(default_factory=Disk)
    watch: asyncio.Task[None] | None = None
