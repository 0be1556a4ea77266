"""What the runtime knows of sandboxes and snapshots, kept on disk: a file each."""

import json
import logging
import os
import secrets
import string
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

ID_LETTERS = string.ascii_lowercase + string.digits
ID_LENGTH = 20
MARGIN_S = 15.0  # PID 1 ends a sandbox this much later than the runtime would
UNWATCHED_S = 30 * 86400.0  # PID 1's limit where ending would lose a paused state
NAMESPACE = "local"  # stands for a team in names of snapshots


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
    snapshot: str = ""  # what it started from, in place of the base tree alone
    cold: str = ""  # paused without a box: the snapshot that holds its files
    paused_whole: bool | None = None  # the last pause, if any: with memory
    auto_pause_memory: bool = True
    held: bool = False  # stands still while its files are copied
    cpus: float = 2.0
    memory_mb: int = 1024
    disk_mb: int = 10240
    metadata: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)

    def inner_limit_s(self, timeout_s: float) -> float:
        """PID 1's own limit: it only acts when the runtime is gone."""
        return UNWATCHED_S if self.auto_pause else timeout_s + MARGIN_S

    @property
    def started(self) -> str:
        return iso(self.started_at)

    @property
    def ends(self) -> str:
        return iso(self.end_at)


@dataclass
class Snapshot:
    """Files of a sandbox, kept for others to start from."""

    snapshot_id: str
    sandbox_id: str
    base_tree: str
    made_at: float
    name: str = ""
    tag: str = "default"

    @property
    def names(self) -> list[str]:
        return [f"{NAMESPACE}/{self.name}:{self.tag}"] if self.name else []

    @property
    def public_id(self) -> str:
        """What clients name it by, and create from."""
        return self.names[0] if self.name else f"{self.snapshot_id}:{self.tag}"


class Store:
    """The records' folder. A write replaces the file whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> list[Record]:
        """Every readable record; an unreadable one is logged and removed."""
        return self._load("json", parse)

    def save(self, record: Record) -> None:
        self._write(self._path(record.sandbox_id, "json"), asdict(record))

    def remove(self, sandbox_id: str) -> None:
        self._path(sandbox_id, "json").unlink(missing_ok=True)

    def load_snapshots(self) -> list[Snapshot]:
        """As `load`."""
        return self._load("snapshot", lambda data: Snapshot(**data))

    def save_snapshot(self, snapshot: Snapshot) -> None:
        self._write(self._path(snapshot.snapshot_id, "snapshot"), asdict(snapshot))

    def remove_snapshot(self, snapshot_id: str) -> None:
        self._path(snapshot_id, "snapshot").unlink(missing_ok=True)

    def _load[Kind](
        self, suffix: str, read: Callable[[dict[str, Any]], Kind]
    ) -> list[Kind]:
        found = []
        for path in sorted(self._folder.glob(f"*.{suffix}")):
            try:
                found.append(read(json.loads(path.read_text())))
            except (ValueError, TypeError, KeyError) as problem:
                logger.error("record %s is unreadable: %s", path.name, problem)
                path.unlink()
        return found

    def _write(self, path: Path, data: dict[str, Any]) -> None:
        draft = path.with_name(f"{path.name}.new")
        opener = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(opener, "w") as file:
            json.dump(data, file)
        draft.replace(path)

    def _path(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}.{suffix}"


def parse(data: dict[str, Any]) -> Record:
    """A record from its JSON; unknown keys of another version are left out."""
    known = {item.name for item in fields(Record)}
    record = Record(**{key: value for key, value in data.items() if key in known})
    record.state = State(record.state)
    return record


def new_id(kind: str = "i") -> str:
    """An id that begins with `kind`: `i` a sandbox, `s` a snapshot."""
    return kind + "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


def iso(moment_s: float) -> str:
    """A time as E2B writes it: UTC, with a Z."""
    moment = datetime.fromtimestamp(moment_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
