"""What is remembered of a sandbox, for a launcher that comes later."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sandboxes.local.contract import Limits


@dataclass
class Kept:
    """The content of `box.json`. `tree` and `python` are folders' names, `pid` is
    PID 1's here, `number` its place on the router's network."""

    tree: str
    python: str
    slot: int
    limits: Limits
    pid: int = 0
    number: int | None = None

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
