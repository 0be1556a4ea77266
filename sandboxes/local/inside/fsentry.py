"""Users, paths and entries of the sandbox, for the file system agent.

Built-in modules only, like the agent itself.
"""

import errno
import posix

DEFAULT_USER = b"user"
META = "user.e2b."
MAX_META_BYTES = 8192  # read back of one file; an upload may set 4096
KIND = 0o170000
LINK, DIRECTORY, FILE = 0o120000, 0o040000, 0o100000
TYPES = {FILE: b"f", DIRECTORY: b"d"}
GO_TYPES = {LINK: "L", DIRECTORY: "d", 0o140000: "S", 0o010000: "p"}
GO_TYPES |= {0o020000: "Dc", 0o060000: "D"}
SPECIAL = (("u", 0o4000), ("g", 0o2000), ("t", 0o1000))


def table(name: str) -> list[list[bytes]]:
    """Rows of /etc/passwd or /etc/group, each a list of bytes fields."""
    flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC
    try:
        fd = posix.open("/etc/" + name, flags)
    except OSError:
        return []
    try:
        text = posix.read(fd, 1 << 20)
    finally:
        posix.close(fd)
    return [row.split(b":") for row in text.split(b"\n") if row.count(b":") >= 3]


class User:
    """An account of the sandbox: uid, gid, home, and its supplementary groups."""

    def __init__(self, name: bytes) -> None:
        self.name = name or DEFAULT_USER
        for row in table("passwd"):
            if row[0] == self.name and len(row) >= 7:
                self.uid, self.gid = int(row[2]), int(row[3])
                self.home = row[5] or b"/"
                return
        raise OSError(errno.ESRCH, "unknown user")

    def groups(self) -> list[int]:
        rows = (row for row in table("group") if self.name in row[3].split(b","))
        return [self.gid, *(int(row[2]) for row in rows if int(row[2]) != self.gid)]

    def path(self, path: bytes) -> bytes:
        """An absolute path for what a client wrote."""
        if path[:1] == b"~":
            if path[1:2] not in (b"", b"/"):
                raise OSError(errno.EINVAL, "cannot expand user-specific home dir")
            path = self.home + path[1:]
        if path[:1] == b"/":
            return path
        parts: list[bytes] = []
        for part in (self.home + b"/" + path).split(b"/"):
            if part == b"..":
                parts = parts[:-1]
            elif part not in (b"", b"."):
                parts.append(part)
        return b"/" + b"/".join(parts)


class Names:
    """Names of ids, read once for an operation."""

    def __init__(self) -> None:
        self.users = {row[2]: row[0] for row in reversed(table("passwd"))}
        self.groups = {row[2]: row[0] for row in reversed(table("group"))}


def basename(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[2] or b"/"


def dirname(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[0] or b"/"


def real(path: bytes) -> bytes:
    """The path with every link followed, by the kernel; OSError if it has no end."""
    fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    try:
        return posix.readlink(b"/proc/self/fd/%d" % fd)
    finally:
        posix.close(fd)


def isdir(path: bytes) -> bool:
    try:
        return posix.stat(path).st_mode & KIND == DIRECTORY
    except OSError:
        return False


def metadata(path: bytes | int) -> list[bytes]:
    """The upload's key and value pairs, flat, from the extended attributes."""
    pairs, size = [], 0
    try:
        for name in posix.listxattr(path):
            if name.startswith(META):
                value = posix.getxattr(path, name).replace(b"\0", b"")
                size += len(name) + len(value)
                if size > MAX_META_BYTES:
                    break
                pairs += [name[len(META) :].encode(), value]
    except OSError:
        pass
    return pairs


def write_metadata(fd: int, wanted: dict[bytes, bytes]) -> None:
    """Let a file have exactly these pairs."""
    for key in metadata(fd)[::2]:
        if key not in wanted:
            posix.removexattr(fd, META + key.decode())
    for key, value in wanted.items():
        posix.setxattr(fd, META + key.decode(), value)


def permissions(mode: int) -> bytes:
    """A mode as Go prints it: `drwxr-xr-x`, `Lrwxrwxrwx`, `utrwxrwxrwx`."""
    head = GO_TYPES.get(mode & KIND, "")
    head += "".join(letter for letter, bit in SPECIAL if mode & bit)
    bits = "".join(c if mode & (256 >> i) else "-" for i, c in enumerate("rwxrwxrwx"))
    return ((head or "-") + bits).encode()


def entry(path: bytes, names: Names) -> list[bytes]:
    """Fields: name, type, path, size, mode, permissions, owner, group, seconds,
    nanoseconds, link target, 1 for a link, number of metadata fields, metadata."""
    st = posix.lstat(path)
    target, mode, link = b"", st.st_mode, b"0"
    if mode & KIND == LINK:
        link = b"1"
        try:
            target, mode = real(path), posix.stat(path).st_mode
        except OSError:
            target, mode = path, 0
    pairs = metadata(path)
    return [
        basename(path),
        TYPES.get(mode & KIND, b""),
        path,
        b"%d" % st.st_size,
        b"%d" % (mode & 0o777),
        permissions(st.st_mode),
        names.users.get(b"%d" % st.st_uid, b"%d" % st.st_uid),
        names.groups.get(b"%d" % st.st_gid, b"%d" % st.st_gid),
        b"%d" % (st.st_mtime_ns // 10**9),
        b"%d" % (st.st_mtime_ns % 10**9),
        target,
        link,
        b"%d" % len(pairs),
        b"\1".join(pairs),
    ]
