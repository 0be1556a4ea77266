"""What the HTTP side of the local runtime asks of the isolation side.

The isolation side (package `isolation`) owns containers, mounts, cgroups and
networks and is the only part that may hold privileges; the HTTP side owns E2B's
REST and envd protocols. Everything here is asynchronous and runs on one loop.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class BoxGone(Exception):
    """The sandbox no longer exists; every pending and later call on it fails so."""


class IsolationUnavailable(Exception):
    """This machine cannot isolate sandboxes; the text holds the command to run."""


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use. `cpus` are cores, `pids` processes and threads."""

    cpus: float = 2.0
    memory_mb: int = 1024
    pids: int = 512
    disk_mb: int = 10240


@dataclass(frozen=True)
class BoxSpec:
    """One sandbox to make. `template` is a base tree: `host` or `base`.

    With a `snapshot` it starts from the files of that, whatever `template` says.
    `timeout_s` is the deadline that PID 1 keeps by itself, in seconds from now.
    """

    sandbox_id: str
    template: str
    timeout_s: float
    internet: bool = True
    limits: Limits = field(default_factory=Limits)
    snapshot: str = ""


@dataclass(frozen=True)
class Identity:
    """Who a command runs as inside the sandbox (numeric, of the sandbox)."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class BoxStats:
    """Use right now, from the sandbox's own accounting; bytes unless named."""

    cpu_used_s: float
    memory_used: int
    memory_total: int
    memory_cache: int
    disk_used: int
    disk_total: int
    processes: int


@dataclass(frozen=True)
class BaseTree:
    """A base tree as it stands: state is ready, building, absent or failed."""

    name: str
    state: str
    detail: str = ""


class Box(Protocol):
    """A live sandbox. Methods raise BoxGone once it has ended.

    An OSError keeps the errno that the call met inside the sandbox.
    """

    sandbox_id: str

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        identity: Identity,
        env: Mapping[str, str],
        cwd: str,
        fds: Sequence[int],
    ) -> int:
        """Start a command in its own session; `fds` become its 0, 1, 2 (and 3, ...).

        The caller closes its copies of `fds`. Returns the pid inside the sandbox.
        """
        ...

    async def spawn_pty(
        self,
        argv: Sequence[str],
        *,
        identity: Identity,
        env: Mapping[str, str],
        cwd: str,
        rows: int,
        cols: int,
    ) -> tuple[int, int]:
        """Start a command on a new controlling terminal; (pid, master descriptor)."""
        ...

    async def wait(self, pid: int) -> int:
        """Exit code of a command started here; negative for a signal.

        Works any number of times and after the exit (kept at least 60 s).
        """
        ...

    async def signal(self, pid: int, number: int, *, tree: bool = False) -> None:
        """Send a signal to the process, with `tree` to its whole group and children.

        Raises ProcessLookupError when there is none.
        """
        ...

    async def dial(self, port: int) -> socket.socket:
        """A connected, non-blocking stream to 127.0.0.1 (or ::1) `port` inside."""
        ...

    async def set_deadline(self, timeout_s: float) -> None:
        """Let PID 1 end the sandbox in `timeout_s` seconds unless told otherwise."""
        ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def kill(self) -> None:
        """End it and remove every trace; idempotent, returns when it is gone."""
        ...

    async def snapshot(self, snapshot_id: str) -> None:
        """Keep its files under that new id. Pause it first: they are copied one
        after the other."""
        ...

    async def set_internet(self, allowed: bool) -> None:
        """Open or close the sandbox's way to the internet while it runs."""
        ...

    async def stats(self) -> BoxStats: ...

    async def gone(self) -> None:
        """Return when the sandbox has ended, for whatever reason."""
        ...


class Driver(Protocol):
    """Makes and finds boxes. One per runtime; started by `isolation.launch`."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def probe(self) -> Mapping[str, str]:
        """What this machine gives, one line each (user namespaces, cgroup, ...)."""
        ...

    async def base_trees(self) -> Sequence[BaseTree]: ...

    async def build_base(self) -> None:
        """Begin to build the base tree `base` in the background, once."""
        ...

    async def create(self, spec: BoxSpec) -> Box: ...

    async def attach(self, sandbox_id: str) -> Box:
        """Find a sandbox of an earlier run again. Raises BoxGone."""
        ...

    async def survivors(self) -> Sequence[str]:
        """Ids of sandboxes of earlier runs that still live; the rest is removed."""
        ...

    async def snapshots(self) -> Sequence[str]:
        """Ids of all snapshots."""
        ...

    async def remove_snapshot(self, snapshot_id: str) -> None:
        """Forget a snapshot; idempotent. Sandboxes made from it live on."""
        ...
