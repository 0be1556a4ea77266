"""What the runtime knows of a sandbox, kept on disk: one JSON file each."""

import contextlib
import json
import logging
import os
import secrets
import string
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ID_LETTERS = string.ascii_lowercase + string.digits
ID_LENGTH = 20


class State(StrEnum):
    """As E2B names them on the wire."""

    RUNNING = "running"
    PAUSED = "paused"


@dataclass
class Record:
    """One sandbox. Times are seconds since 1970; a token of None asks for none."""

    sandbox_id: str
    template: str
    base_tree: str
    started_at: float
    end_at: float
    timeout_s: float
    state: State = State.RUNNING
    envd_token: str | None = None
    traffic_token: str | None = None
    auto_pause: bool = False
    auto_resume: bool = False
    internet: bool = True
    allow_internet: bool | None = None  # as the client wrote it
    idempotency_key: str | None = None
    cpus: float = 2.0
    memory_mb: int = 1024
    disk_mb: int = 10240
    metadata: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)

    @property
    def started(self) -> str:
        return iso(self.started_at)

    @property
    def ends(self) -> str:
        return iso(self.end_at)


class Store:
    """The records' folder. A write replaces the file whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> list[Record]:
        """Every readable record; an unreadable one is logged and removed."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(parse(json.loads(path.read_text())))
            except (ValueError, TypeError, KeyError) as problem:
                logger.error("record %s is unreadable: %s", path.name, problem)
                path.unlink()
        return found

    def save(self, record: Record) -> None:
        path = self._path(record.sandbox_id)
        draft = path.with_suffix(".new")
        opener = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opener, "w") as file:
            json.dump(asdict(record), file)
        draft.replace(path)

    def remove(self, sandbox_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(sandbox_id).unlink()

    def _path(self, sandbox_id: str) -> Path:
        return self._folder / f"{sandbox_id}.json"


def parse(data: dict[str, Any]) -> Record:
    """A record from its JSON; unknown keys of another version are left out."""
    known = {item.name for item in fields(Record)}
    record = Record(**{key: value for key, value in data.items() if key in known})
    record.state = State(record.state)
    return record


def new_id() -> str:
    return "i" + "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


def iso(moment_s: float) -> str:
    """A time as E2B writes it: UTC, with a Z."""
    moment = datetime.fromtimestamp(moment_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
