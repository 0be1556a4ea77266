"""Isolation of sandboxes: everything that needs privileges, behind one interface.

`launch(root)` is the first thing the runtime does. It forks the launcher, which
keeps the privileges and serves no network, and leaves this process without any:
as root it becomes an ordinary user, as an ordinary user it is root of a user
namespace only. The `Driver` it returns is driven over a socket to the launcher.

    launcher.py     the socket between the two processes, and who serves it
    checks.py       what the launcher accepts from a server it does not trust
    privileges.py   who holds what
    engine.py       makes, finds, pauses and ends sandboxes (launcher only)
    oci.py          what confines a sandbox, as data; seccomp.json with it
    oci_runtime.py  calls of crun or runc
    mounts.py       root file systems put together, out of everybody's sight
    trees.py        what they start from; skeleton.py is the tree `host`
    snapshots.py    layers that sandboxes left to start from; copying.py makes them
    interpreter.py  the private Python that PID 1 and helpers run on
    network.py      the way out
    cgroups.py      limits' accounting; usage.py what a sandbox uses
    removal.py      removes what somebody hostile left
    folders.py      where sockets and states lie; kept.py what is remembered
    box.py          a live sandbox, as the server sees it; channel.py to its PID 1
    probe.py        what this machine gives
"""

import functools
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sandboxes.local.contract import (
    BaseTree,
    Box,
    BoxGone,
    BoxSpec,
    IsolationUnavailable,
)

from .box import LocalBox
from .folders import run_folder
from .interpreter import PYTHON_ARGV
from .launcher import LauncherClient, serve
from .privileges import (
    enter_user_namespace,
    fork_launcher,
    give_up_root,
    server_id,
)

__all__ = ["PYTHON_ARGV", "LocalDriver", "launch"]
SOURCE = Path(__file__).resolve().parents[3]


class LocalDriver:
    """A `contract.Driver`."""

    def __init__(self, control: Path, launcher: LauncherClient) -> None:
        self._control = control
        self._launcher = launcher

    async def start(self) -> None:
        """See contract.Driver."""
        self._launcher.start()

    async def close(self) -> None:
        """See contract.Driver. Sandboxes live on."""
        self._launcher.close()

    async def probe(self) -> Mapping[str, str]:
        """See contract.Driver."""
        found: dict[str, str] = await self._launcher.call("probe")
        return found

    async def base_trees(self) -> Sequence[BaseTree]:
        """See contract.Driver."""
        return [BaseTree(**tree) for tree in await self._launcher.call("base_trees")]

    async def build_base(self) -> None:
        """See contract.Driver."""
        await self._launcher.call("build_base")

    async def create(self, spec: BoxSpec) -> Box:
        """See contract.Driver."""
        await self._launcher.call("create", **asdict(spec))
        try:
            return await self._connect(spec.sandbox_id)
        except BaseException:
            await self._launcher.call("kill", sandbox_id=spec.sandbox_id)
            raise

    async def attach(self, sandbox_id: str) -> Box:
        """See contract.Driver."""
        state = await self._launcher.call("state", sandbox_id=sandbox_id)
        if not state:
            raise BoxGone("The sandbox has ended.")
        return await self._connect(sandbox_id, paused=state == "paused")

    async def survivors(self) -> Sequence[str]:
        """See contract.Driver."""
        found: list[str] = await self._launcher.call("survivors")
        return found

    async def snapshots(self) -> Sequence[str]:
        """See contract.Driver."""
        found: list[str] = await self._launcher.call("snapshots")
        return found

    async def remove_snapshot(self, snapshot_id: str) -> None:
        """See contract.Driver."""
        await self._launcher.call("remove_snapshot", snapshot_id=snapshot_id)

    async def _connect(self, sandbox_id: str, *, paused: bool = False) -> LocalBox:
        box = LocalBox(sandbox_id, self._control / sandbox_id, self._launcher)
        await box.connect(paused=paused)
        return box


def launch(root: Path) -> LocalDriver:
    """Split off the launcher and give up privileges. Call it before all else."""
    root = root.absolute()
    enter_user_namespace()
    root.mkdir(parents=True, exist_ok=True)
    uid, control = server_id(root), run_folder(root) / "control"
    _hand_over(root / "records", uid)
    connection = fork_launcher(functools.partial(serve, root, uid))
    needed = [Path(sys.prefix), Path(sys.base_prefix), SOURCE, root / "records"]
    try:
        give_up_root(uid, needed)
    except OSError as error:
        problem = f"The server cannot give up its privileges here: {error}"
        raise IsolationUnavailable(problem) from error
    return LocalDriver(control, LauncherClient(connection))


def _hand_over(folder: Path, uid: int) -> None:
    """Give the server the one folder that it writes to.

    What is in there may be a server's of before, so nothing is followed.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder, flags)
    try:
        os.fchown(descriptor, uid, -1)
        for name in os.listdir(descriptor):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                os.chown(name, uid, -1, dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)
