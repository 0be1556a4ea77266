"""Does file system work inside a sandbox, for the runtime outside.

Runs as the sandbox's root on the private interpreter, with built-in modules only
(ctypes once a watch asks for inotify). Descriptor 3 is a SOCK_SEQPACKET socket; the
program ends when the other side closes it.

A message is bytes fields joined by NUL. Request: id, operation, user, arguments.
Answer: id, kind, fields; kind is `ok` (last), `more` (a piece of a list, 14 fields
an entry, see `entry`), `event` (of a watch, whose id is the request's) or `err`
(errno, text). An opened file travels with its `ok` by SCM_RIGHTS.
An empty user is `user`. Paths may be absolute, relative to the home, or `~`.
"""
# ruff: noqa: SIM105, UP031 - neither contextlib nor costly formats: start counts

import _signal
import _socket
import errno
import posix
import select

DEFAULT_USER = b"user"
PIECE_BYTES = 30_000  # below the smallest send buffer of a SEQPACKET socket
MAX_ENTRIES = 50_000  # of one listing: about 15 MB of answer
META = "user.e2b."
MAX_META_BYTES = 8192  # read back of one file; an upload may set 4096
TYPES = {0o100000: b"f", 0o040000: b"d", 0o120000: b"l"}
GO_TYPES = {0o120000: "L", 0o040000: "d", 0o140000: "S", 0o010000: "p"}
GO_TYPES |= {0o020000: "Dc", 0o060000: "D"}
SPECIAL = (("u", 0o4000), ("g", 0o2000), ("t", 0o1000))
O_CLOEXEC = posix.O_CLOEXEC

sock = _socket.socket(fileno=3)
poll = select.poll()
watches: dict = {}


def send(rid, kind, fields=(), fd=None):
    """Answer; a runtime that went away is noticed by the next read."""
    data = b"\0".join((rid, kind, *fields))
    rights = []
    if fd is not None:
        ancillary = fd.to_bytes(4, "little")
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, ancillary)]
    try:
        sock.sendmsg([data], rights)
    except OSError:
        pass


def table(name):
    """Rows of /etc/passwd or /etc/group, each a list of bytes fields."""
    try:
        fd = posix.open("/etc/" + name, posix.O_RDONLY | posix.O_NONBLOCK | O_CLOEXEC)
    except OSError:
        return []
    try:
        text = posix.read(fd, 1 << 20)
    finally:
        posix.close(fd)
    return [row.split(b":") for row in text.split(b"\n") if row.count(b":") >= 3]


class User:
    """An account of the sandbox: uid, gid, home, and its supplementary groups."""

    def __init__(self, name):
        self.name = name or DEFAULT_USER
        for row in table("passwd"):
            if row[0] == self.name and len(row) >= 7:
                self.uid, self.gid = int(row[2]), int(row[3])
                self.home = row[5] or b"/"
                return
        raise OSError(errno.ESRCH, "unknown user")

    def groups(self):
        rows = (row for row in table("group") if self.name in row[3].split(b","))
        return [self.gid, *(int(row[2]) for row in rows if int(row[2]) != self.gid)]

    def path(self, path):
        """An absolute path for what a client wrote."""
        if path[:1] == b"~":
            if path[1:2] not in (b"", b"/"):
                raise OSError(errno.EINVAL, "cannot expand user-specific home dir")
            path = self.home + path[1:]
        if path[:1] == b"/":
            return path
        parts = []
        for part in (self.home + b"/" + path).split(b"/"):
            if part == b"..":
                parts = parts[:-1]
            elif part not in (b"", b"."):
                parts.append(part)
        return b"/" + b"/".join(parts)


def basename(path):
    return path.rstrip(b"/").rpartition(b"/")[2] or b"/"


def dirname(path):
    return path.rstrip(b"/").rpartition(b"/")[0] or b"/"


def real(path):
    """The path with every link followed, by the kernel; OSError if it has no end."""
    fd = posix.open(path, posix.O_PATH | O_CLOEXEC)
    try:
        return posix.readlink(b"/proc/self/fd/%d" % fd)
    finally:
        posix.close(fd)


def metadata(path):
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


def permissions(mode):
    """A mode as Go prints it: `drwxr-xr-x`, `Lrwxrwxrwx`, `utrwxrwxrwx`."""
    head = GO_TYPES.get(mode & 0o170000, "")
    head += "".join(c for c, bit in SPECIAL if mode & bit)
    bits = "".join(c if mode & (256 >> i) else "-" for i, c in enumerate("rwxrwxrwx"))
    return ((head or "-") + bits).encode()


class Names:
    """Names of ids, read once for an operation."""

    def __init__(self):
        self.users = {row[2]: row[0] for row in reversed(table("passwd"))}
        self.groups = {row[2]: row[0] for row in reversed(table("group"))}


def entry(path, names):
    """Fields: name, type, path, size, mode, permissions, owner, group, seconds,
    nanoseconds, link target, 1 for a link, number of metadata fields, metadata."""
    st = posix.lstat(path)
    target, mode, link = b"", st.st_mode, b"0"
    if mode & 0o170000 == 0o120000:
        link = b"1"
        try:
            target, mode = real(path), posix.stat(path).st_mode
        except OSError:
            target, mode = path, 0
    pairs = metadata(path)
    return [
        basename(path),
        TYPES.get(mode & 0o170000, b"") if mode else b"",
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


def isdir(path):
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def make_parents(path, user):
    """`mkdir -p`, each new directory owned by the user."""
    missing = []
    while not isdir(path):
        try:
            posix.lstat(path)
        except FileNotFoundError:
            missing.append(path)
            path = dirname(path)
        else:
            raise OSError(errno.ENOTDIR, "a parent is a file")
    for new in reversed(missing):
        try:
            posix.mkdir(new, 0o755)
        except FileExistsError:
            continue
        posix.chown(new, user.uid, user.gid)


def op_user(rid, user):
    groups = b",".join(b"%d" % group for group in user.groups())
    send(rid, b"ok", [b"%d" % user.uid, b"%d" % user.gid, groups, user.home])


def op_stat(rid, user, path):
    try:
        send(rid, b"ok", entry(user.path(path), Names()))
    except NotADirectoryError:
        raise OSError(errno.ENOENT, "No such file or directory") from None


def op_mkdir(rid, user, path):
    path = user.path(path)
    if isdir(path):
        raise OSError(errno.EEXIST, "directory already exists")
    make_parents(path, user)
    send(rid, b"ok", entry(path, Names()))


def op_move(rid, user, source, destination):
    source, destination = user.path(source), user.path(destination)
    posix.lstat(source)
    make_parents(dirname(destination), user)
    posix.rename(source, destination)
    send(rid, b"ok", entry(destination, Names()))


def walk(top, depth):
    """Paths below `top`, each directory's in order, not through links."""
    for found in sorted(posix.scandir(top), key=lambda found: found.name):
        yield found.path
        if depth > 1 and found.is_dir(follow_symlinks=False):
            try:
                yield from walk(found.path, depth - 1)
            except OSError:
                pass


def op_list(rid, user, path, depth):
    path = user.path(path)
    posix.lstat(path)
    top = real(path)
    if not isdir(top):
        raise OSError(errno.ENOTDIR, "not a directory")
    names, piece, count, size = Names(), [], 0, 0
    for found in walk(top, int(depth)):
        count += 1
        if count > MAX_ENTRIES:
            raise OSError(errno.E2BIG, "more than %d entries" % MAX_ENTRIES)
        try:
            row = entry(found, names)
        except OSError:
            continue
        row[2] = path.rstrip(b"/") + found[len(top.rstrip(b"/")) :]
        row_bytes = sum(map(len, row)) + len(row)
        if piece and size + row_bytes > PIECE_BYTES:
            send(rid, b"more", piece)
            piece, size = [], 0
        piece += row
        size += row_bytes
    send(rid, b"ok", piece)


def remove_tree(path):
    for found in posix.scandir(path):
        if found.is_dir(follow_symlinks=False):
            remove_tree(found.path)
        else:
            posix.unlink(found.path)
    posix.rmdir(path)


def op_remove(rid, user, path):
    path = user.path(path)
    try:
        if posix.lstat(path).st_mode & 0o170000 == 0o040000:
            remove_tree(path)
        else:
            posix.unlink(path)
    except FileNotFoundError:
        pass
    send(rid, b"ok")


def regular(fd):
    """The size of a regular file; anything else is refused."""
    st = posix.fstat(fd)
    mode, size = st.st_mode & 0o170000, st.st_size
    if mode == 0o040000:
        raise OSError(errno.EISDIR, "is a directory")
    if mode != 0o100000:
        raise OSError(errno.EINVAL, "not a regular file")
    return size


def op_read(rid, user, path):
    path = user.path(path)
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | O_CLOEXEC)
    try:
        regular(fd)
        send(rid, b"ok", [path], fd)
    finally:
        posix.close(fd)


def op_write(rid, user, path, *pairs):
    """Open for writing, empty, owned by the user, with exactly these metadata."""
    path = user.path(path)
    if isdir(path):
        raise OSError(errno.EISDIR, "is a directory")
    make_parents(dirname(path), user)
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_NONBLOCK | O_CLOEXEC
    fd = posix.open(path, flags, 0o644)
    try:
        if regular(fd):
            posix.ftruncate(fd, 0)
        posix.fchown(fd, user.uid, user.gid)
        write_metadata(fd, dict(zip(pairs[::2], pairs[1::2], strict=True)))
        send(rid, b"ok", [path, *metadata(path)], fd)
    finally:
        posix.close(fd)


def write_metadata(fd, wanted):
    old = metadata(fd)[::2]
    for key in old:
        if key not in wanted:
            posix.removexattr(fd, META + key.decode())
    for key, value in wanted.items():
        posix.setxattr(fd, META + key.decode(), value)


class Watch:
    """An inotify watch on a directory, with `recursive` on all below it too."""

    MASK = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200
    #      modify attrib moved_from moved_to create delete
    KINDS = ((0x180, b"C"), (0x40, b"N"), (0x4, b"M"), (0x2, b"W"), (0x200, b"R"))
    WITH_ENTRY = b"CMW"

    def __init__(self, rid, top, recursive, include_entry):
        import ctypes

        self.libc = ctypes.CDLL(None, use_errno=True)
        self.errno = ctypes.get_errno
        self.rid, self.recursive, self.include = rid, recursive, include_entry
        self.top, self.dirs, self.early = top, {}, {}
        self.fd = self.libc.inotify_init1(posix.O_NONBLOCK | O_CLOEXEC)
        if self.fd < 0:
            raise OSError(self.errno(), "inotify")
        self.add(top, new=False)
        if not self.dirs:
            posix.close(self.fd)
            raise OSError(self.errno() or errno.ENOSPC, "cannot watch")

    def add(self, path, *, new):
        """Watch a directory; of a `new` one report what it already holds."""
        wd = self.libc.inotify_add_watch(self.fd, path, self.MASK)
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
                self.report(b"C", found.path)
            if found.is_dir(follow_symlinks=False):
                self.add(found.path, new=new)

    def report(self, kind, path):
        name = path[len(self.top.rstrip(b"/")) + 1 :]
        row = []
        if self.include and kind in self.WITH_ENTRY:
            try:
                row = entry(path, Names())
            except OSError:
                pass
        send(self.rid, b"event", [kind, name, *row])

    def ready(self):
        try:
            data = posix.read(self.fd, 65536)
        except OSError:
            return
        at = 0
        while at < len(data):
            wd = int.from_bytes(data[at : at + 4], "little", signed=True)
            mask = int.from_bytes(data[at + 4 : at + 8], "little")
            size = int.from_bytes(data[at + 12 : at + 16], "little")
            name = data[at + 16 : at + 16 + size].rstrip(b"\0")
            at += 16 + size
            if mask & 0x8000:  # the directory is no longer watched
                self.dirs.pop(wd, None)
                self.early.pop(wd, None)
            elif wd in self.dirs:
                self.one(wd, mask, name)

    def one(self, wd, mask, name):
        path = self.dirs[wd] + (b"/" + name if name else b"")
        if mask & 0x180 and name in self.early.get(wd, ()):
            self.early[wd].discard(name)
            return
        for bits, kind in self.KINDS:
            if mask & bits:
                self.report(kind, path)
        if self.recursive and mask & 0x180 and mask & 0x40000000:
            self.add(path, new=True)


def op_watch(rid, user, path, recursive, include_entry):
    path = user.path(path)
    posix.stat(path)
    if not isdir(path):
        raise OSError(errno.ENOTDIR, "not a directory")
    watch = Watch(rid, path, recursive == b"1", include_entry == b"1")
    watches[watch.fd] = watch
    poll.register(watch.fd, select.POLLIN)
    send(rid, b"event", [b"S", b""])


def op_unwatch(rid, user, watch_rid):
    for fd, watch in list(watches.items()):
        if watch.rid == watch_rid:
            poll.unregister(fd)
            del watches[fd]
            posix.close(fd)
    send(rid, b"ok")


LONG = {b"list": op_list, b"remove": op_remove}  # in a child, others do not wait
OPS = {
    b"user": op_user,
    b"stat": op_stat,
    b"mkdir": op_mkdir,
    b"move": op_move,
    b"read": op_read,
    b"write": op_write,
    b"watch": op_watch,
    b"unwatch": op_unwatch,
    **LONG,
}


def serve(message):
    rid, op, user, *args = message.split(b"\0")
    if op in LONG and posix.fork():
        return
    try:
        OPS[op](rid, User(user), *args)
    except OSError as problem:
        text = posix.strerror(problem.errno or errno.EIO)
        if problem.filename is None and problem.strerror:
            text = problem.strerror
        send(rid, b"err", [b"%d" % (problem.errno or errno.EIO), text.encode()])
    except Exception as problem:
        send(rid, b"err", [b"%d" % errno.EINVAL, repr(problem)[:200].encode()])
    if op in LONG:
        posix._exit(0)


def main():
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps
    poll.register(3, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != 3:
                if fd in watches:
                    watches[fd].ready()
                continue
            message = sock.recv(1 << 18)
            if not message:
                return
            serve(message)


main()
