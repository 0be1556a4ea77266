"""Watches of directories by inotify, for the file system agent.

The only user of ctypes; imported when the first watch is asked for.
"""

import ctypes
import errno
import posix

from fsentry import Names, entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MODIFY, ATTRIB, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x40, 0x80
CREATE, DELETE, IGNORED, ISDIR = 0x100, 0x200, 0x8000, 0x40000000
APPEARED = CREATE | MOVED_TO
MASK = MODIFY | ATTRIB | MOVED_FROM | DELETE | APPEARED
KINDS = (
    (APPEARED, b"C"),
    (MOVED_FROM, b"N"),
    (ATTRIB, b"M"),
    (MODIFY, b"W"),
    (DELETE, b"R"),
)
WITH_ENTRY = b"CMW"
READ_BYTES = 65536

libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """An inotify watch on a directory, with `recursive` on all below it too.

    `report` gets the fields of each event: its kind, the name below the directory,
    and with `include_entry` those of the entry where it still exists.
    """

    def __init__(
        self,
        top: bytes,
        report: "Callable[[list[bytes]], None]",
        *,
        recursive: bool,
        include_entry: bool,
    ) -> None:
        self.top, self.report = top, report
        self.recursive, self.include_entry = recursive, include_entry
        self.dirs: dict[int, bytes] = {}
        self.early: dict[int, set[bytes]] = {}
        self.fd = libc.inotify_init1(posix.O_NONBLOCK | posix.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "no more watches")
        self.add(top, new=False)
        if not self.dirs:
            posix.close(self.fd)
            raise OSError(ctypes.get_errno() or errno.ENOSPC, "cannot watch")

    def add(self, path: bytes, *, new: bool) -> None:
        """Watch a directory; of a `new` one tell what it already holds."""
        wd = libc.inotify_add_watch(self.fd, path, MASK)
        if wd < 0:
            return
        self.dirs[wd] = path
        if not self.recursive:
            return
        try:
            inside = list(posix.scandir(path))
        except OSError:
            return
        if new:
            self.early[wd] = {found.name for found in inside}
        for found in inside:
            if new:
                self.tell(b"C", found.path)
            if found.is_dir(follow_symlinks=False):
                self.add(found.path, new=new)

    def tell(self, kind: bytes, path: bytes) -> None:
        row: list[bytes] = []
        if self.include_entry and kind in WITH_ENTRY:
            try:
                row = entry(path, Names())
            except OSError:
                pass
        self.report([kind, path[len(self.top.rstrip(b"/")) + 1 :], *row])

    def ready(self) -> None:
        """Read and tell what happened."""
        try:
            data = posix.read(self.fd, READ_BYTES)
        except OSError:
            return
        at = 0
        while at < len(data):
            wd = int.from_bytes(data[at : at + 4], "little", signed=True)
            mask = int.from_bytes(data[at + 4 : at + 8], "little")
            size = int.from_bytes(data[at + 12 : at + 16], "little")
            name = data[at + 16 : at + 16 + size].rstrip(b"\0")
            at += 16 + size
            if mask & IGNORED:
                self.dirs.pop(wd, None)
                self.early.pop(wd, None)
            elif wd in self.dirs:
                self.one(wd, mask, name)

    def one(self, wd: int, mask: int, name: bytes) -> None:
        path = self.dirs[wd]
        if name:
            path = path.rstrip(b"/") + b"/" + name
        if mask & APPEARED and name in self.early.get(wd, ()):
            self.early[wd].discard(name)
            return
        for bits, kind in KINDS:
            if mask & bits:
                self.tell(kind, path)
        if self.recursive and mask & APPEARED and mask & ISDIR:
            self.add(path, new=True)
