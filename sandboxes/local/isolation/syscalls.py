"""The few Linux calls that the standard library lacks. Numbers are x86-64's and
arm64's alike: the new mount calls have one number on all machines."""

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_IDMAP = 0x100000
_CAPABILITY_V3 = 0x20080522


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _check(_libc.unshare(flags), "unshare")


def prctl(option: int, value: int | bytes) -> None:
    """Set one property of this process."""
    first = ctypes.c_ulong(value) if isinstance(value, int) else value
    rest = (ctypes.c_ulong(0) for _ in range(3))
    _check(_libc.prctl(option, first, *rest), "prctl")


def drop_capabilities() -> None:
    """Hold no capability from now on, nor get one by starting a program."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("Ii", _CAPABILITY_V3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(result, f"mount {kind} on {target}")


def unmount(target: Path) -> None:
    """Take the mount off at once; it ends when its last user does."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def private_mounts() -> None:
    """Give this process mounts of its own: nothing it mounts shows outside."""
    unshare(CLONE_NEWNS)
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def user_namespace(first_id: int, count: int) -> int:
    """Descriptor of a user namespace whose 0..count are `first_id`.. outside."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            unshare(CLONE_NEWUSER)
            prctl(PR_SET_PDEATHSIG, 9)
            os.write(tell, b"k")
            os.close(tell)
            signal.pause()
        os._exit(1)
    os.close(tell)
    try:
        if os.read(ready, 1) != b"k":
            raise OSError(1, "user namespaces are refused")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"0 {first_id} {count}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def mount_idmapped(source: Path, target: Path, namespace: int) -> None:
    """Bind `source` on `target`, its owners shifted by a user namespace."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _check(
        _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags),
        f"open_tree {source}",
    )
    try:
        attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, namespace)
        size = ctypes.c_size_t(len(attributes))
        _check(
            _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, size),
            f"shift the owners of {source}",
        )
        _check(
            _libc.syscall(
                _MOVE_MOUNT,
                tree,
                b"",
                _AT_FDCWD,
                os.fsencode(target),
                _MOVE_MOUNT_F_EMPTY_PATH,
            ),
            f"move_mount {target}",
        )
    finally:
        os.close(tree)


@contextlib.contextmanager
def file_ids(uid: int, gid: int) -> Iterator[None]:
    """Act on files as this user, with the capabilities that setfsuid() takes.

    An overlay's upper layer under shifted owners is silently read-only unless
    the mounter's own ids are mapped in it.
    """
    header = struct.pack("Ii", _CAPABILITY_V3, 0)
    kept = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, kept), "capget")
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    _check(_libc.capset(header, kept), "capset")
    try:
        yield
    finally:
        _libc.setfsuid(os.geteuid())
        _libc.setfsgid(os.getegid())
