"""Puts the root file systems of sandboxes together, out of everybody's sight.

All of it hangs below a tmpfs in the launcher's own mount namespace. Once a
container runs it has its own copy of the mounts and these are taken off, so a
crash leaves nothing to unmount.
"""

import contextlib
import os
import stat
import uuid
from collections.abc import Sequence
from pathlib import Path

from sandboxes.local.contract import IsolationUnavailable

from . import cgroups, oci, syscalls

# A place that every user of the host may pass through.
TOP = Path("/mnt")
PYTHON, STATE = TOP / "python", TOP / "state"
# Of the ranges that container managers share out; see `systemd-nspawn(1)`.
FIRST_ID, SLOTS = 0x20000000, 16384


def first_id(slot: int) -> int:
    """The first of the 65,536 ids outside that a sandbox's ids are shifted by."""
    return FIRST_ID + slot * oci.IDS_PER_SANDBOX


class Mounts:
    """The mounts of one launcher. `shifted`: each sandbox has a range of ids."""

    def __init__(self, *, shifted: bool) -> None:
        self.shifted = shifted
        self._namespaces: dict[int, int] = {}

    def start(self, state: Path) -> None:
        """Pin `state`, whatever its name becomes. Our mounts are private already.

        Where the folder around it belongs to the server's user, that user could
        put another in its place; here it stays the one that was checked.
        """
        if cgroups.version() == "hybrid":
            _hide_unified()
        pinned = _checked(state)
        syscalls.mount("tmpfs", TOP, "tmpfs", 0, "mode=0711,size=1m")
        STATE.mkdir(mode=0o700)
        syscalls.mount(f"/proc/self/fd/{pinned}", STATE, "", syscalls.MS_BIND)
        os.close(pinned)

    def provide_python(self, folder: Path) -> None:
        """Show the interpreter at PYTHON."""
        PYTHON.mkdir()
        syscalls.mount(str(folder), PYTHON, "", syscalls.MS_BIND)

    def root(self, sandbox_id: str) -> Path:
        """Where `put` shows a sandbox's root file system."""
        return TOP / sandbox_id / "root"

    def boot_id(self, sandbox_id: str) -> Path:
        """Where `put` shows what the sandbox is to take for its kernel's boot id."""
        return TOP / sandbox_id / "boot_id"

    def put(
        self, sandbox_id: str, lowers: Sequence[Path], files: Path, slot: int
    ) -> None:
        """Mount a sandbox's root: its `files` over layers, the last a base tree."""
        here, options = TOP / sandbox_id, ""
        shown = [here / f"lower{number}" for number in range(len(lowers))]
        for folder in (here, *shown, here / "files", here / "root"):
            folder.mkdir()
        (here / "boot_id").write_text(f"{uuid.uuid4()}\n")
        (here / "boot_id").chmod(0o444)
        if self.shifted:
            namespace = self._namespace(slot)
            for lower, place in zip(lowers, shown, strict=True):
                syscalls.mount_idmapped(lower, place, namespace)
            syscalls.mount_idmapped(files, here / "files", namespace)
            lowers, files = shown, here / "files"
        else:
            options = ",userxattr"
        data = (
            f"lowerdir={':'.join(map(str, lowers))},"
            f"upperdir={files}/upper,workdir={files}/work,"
            f"index=off,xino=off{options}"
        )
        owner = first_id(slot)
        change = syscalls.file_ids(owner, owner) if self.shifted else None
        with change or contextlib.nullcontext():
            # With the owner's ids: else its upper layer is silently read-only.
            syscalls.mount("overlay", here / "root", "overlay", syscalls.MS_NODEV, data)

    def take(self, sandbox_id: str) -> None:
        """Take the mounts off; harmless when there are none."""
        here = TOP / sandbox_id
        lowers = sorted(path.name for path in here.glob("lower*"))
        for name in ("root", "files", *lowers):
            with contextlib.suppress(OSError):
                syscalls.unmount(here / name)
            with contextlib.suppress(OSError):
                (here / name).rmdir()
        (here / "boot_id").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            here.rmdir()

    def mappings(self, slot: int) -> list[dict[str, int]]:
        """The ids inside by those here: a range of its own where we may choose."""
        count = oci.IDS_PER_SANDBOX
        if self.shifted:
            return [{"containerID": 0, "hostID": first_id(slot), "size": count}]
        # Root of our user namespace first: one piece must not span its two.
        return [
            {"containerID": 0, "hostID": 0, "size": 1},
            {"containerID": 1, "hostID": 1, "size": count - 1},
        ]

    def _namespace(self, slot: int) -> int:
        if slot not in self._namespaces:
            self._namespaces[slot] = syscalls.user_namespace(
                first_id(slot), oci.IDS_PER_SANDBOX
            )
        return self._namespaces[slot]


def _hide_unified() -> None:
    """crun refuses a hybrid tree; without its empty half it sees version 1."""
    unified = cgroups.MOUNT / "unified"
    try:
        syscalls.unmount(unified)
    except OSError:
        # Inherited by a user namespace it cannot be taken off, but covered.
        syscalls.mount("tmpfs", unified, "tmpfs", 0, "size=4k")


def _checked(folder: Path) -> int:
    """A descriptor of our own folder. Raises IsolationUnavailable for another's."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(folder, flags)
    except OSError as error:
        raise IsolationUnavailable(f"{folder} is no folder of ours.") from error
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(descriptor)
        problem = f"{folder} is another user's or open to others. Remove it."
        raise IsolationUnavailable(problem)
    return descriptor
