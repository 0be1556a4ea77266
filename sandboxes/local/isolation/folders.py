"""Where sockets and states of a runtime lie, and that it is the only one there."""

import asyncio
import fcntl
import hashlib
import os
import socket
from pathlib import Path

from sandboxes.local.contract import IsolationUnavailable

from . import probe

LOCK_S = 10.0  # for a launcher that has just lost its server
BACKLOG = 4096  # connections of runtimes that came and went while it was paused
RUN_CHARS = 60


def run_folder(root: Path) -> Path:
    """Sockets and the container runtime's state; for root gone with the next boot.

    Short, since a socket's path has 108 bytes.
    """
    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    if probe.is_root():
        return Path("/run/kode") / name
    within = root / "run"
    return within if len(str(within)) < RUN_CHARS else Path(f"/tmp/kode-{name}")


def prepare(run: Path) -> None:
    """Make folders that others pass through to the sockets, but only we write to.

    Raises IsolationUnavailable where one is another user's.
    """
    above = [run.parent] if probe.is_root() else []
    for folder in (*above, run, run / "oci", run / "control"):
        folder.mkdir(exist_ok=True, mode=0o711)
        if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
            raise IsolationUnavailable(f"{folder} is not ours. Remove it.")
        folder.chmod(0o700 if folder.name == "oci" else 0o711)
    (run / "oci.log").write_bytes(b"")


async def only_one(path: Path, root: Path) -> int:
    """Be the only launcher of `root`, as long as the descriptor is open."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    loop = asyncio.get_running_loop()
    end = loop.time() + LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if loop.time() > end:
                os.close(lock)
                problem = f"Another runtime runs with {root}."
                raise IsolationUnavailable(problem) from None
        await asyncio.sleep(0.02)


def listen(path: Path, owner: int) -> socket.socket:
    """A control socket, which PID 1 inherits and `owner` connects to."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    os.chown(path, owner, -1)
    path.chmod(0o600)
    listener.listen(BACKLOG)
    return listener
