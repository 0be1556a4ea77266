"""Does file system work inside a sandbox, for the runtime outside.

Runs as the sandbox's root on the private interpreter, with built-in modules and its
neighbours `fsentry` and `fswatch`; `fsagent` starts it. Descriptor 3 is a
SOCK_SEQPACKET socket; the program ends when the other side closes it.

A message is bytes fields joined by NUL. Request: id, operation, user, arguments.
Answer: id, kind, fields; kind is `ok` (last), `more` (a piece of a list, 14 fields
an entry, see `fsentry.entry`), `event` (of a watch, whose id is the request's) or
`err` (errno, text). An opened file travels with its `ok` by SCM_RIGHTS.
An empty user is `user`. Paths may be absolute, relative to the home, or `~`.
"""
# ruff: noqa: UP031 - neither contextlib nor costly formats: start counts

import _signal
import _socket
import errno
import posix
import select

from fsentry import (
    DIRECTORY,
    FILE,
    KIND,
    Names,
    User,
    dirname,
    entry,
    isdir,
    metadata,
    real,
    write_metadata,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fswatch import Watch

PIECE_BYTES = 30_000  # below the smallest send buffer of a SEQPACKET socket
REQUEST_BYTES = 1 << 18
MAX_ENTRIES = 20_000  # of one listing: about 4 MB of answer

sock = _socket.socket(fileno=3)
poll = select.poll()
watches: "dict[int, tuple[bytes, Watch]]" = {}  # by descriptor: request id, watch


def send(
    rid: bytes, kind: bytes, fields: "Sequence[bytes]" = (), fd: int | None = None
) -> None:
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


def make_parents(path: bytes, user: User) -> None:
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


def op_user(rid: bytes, user: User) -> None:
    groups = b",".join(b"%d" % group for group in user.groups())
    send(rid, b"ok", [b"%d" % user.uid, b"%d" % user.gid, groups, user.home])


def op_stat(rid: bytes, user: User, path: bytes) -> None:
    try:
        send(rid, b"ok", entry(user.path(path), Names()))
    except NotADirectoryError:
        raise OSError(errno.ENOENT, "No such file or directory") from None


def op_mkdir(rid: bytes, user: User, path: bytes) -> None:
    path = user.path(path)
    if isdir(path):
        raise OSError(errno.EEXIST, "directory already exists")
    make_parents(path, user)
    send(rid, b"ok", entry(path, Names()))


def op_move(rid: bytes, user: User, source: bytes, destination: bytes) -> None:
    source, destination = user.path(source), user.path(destination)
    posix.lstat(source)
    make_parents(dirname(destination), user)
    posix.rename(source, destination)
    send(rid, b"ok", entry(destination, Names()))


def walk(top: bytes, depth: int) -> "Iterator[bytes]":
    """Paths below `top`, each directory's in order, not through links."""
    for found in sorted(posix.scandir(top), key=lambda found: found.name):
        yield found.path
        if depth > 1 and found.is_dir(follow_symlinks=False):
            try:
                yield from walk(found.path, depth - 1)
            except OSError:
                pass


def op_list(rid: bytes, user: User, path: bytes, depth: bytes) -> None:
    path = user.path(path)
    posix.lstat(path)
    top = real(path)
    if not isdir(top):
        raise OSError(errno.ENOTDIR, "path is not a directory")
    names, count, size = Names(), 0, 0
    piece: list[bytes] = []
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


def remove_tree(path: bytes) -> None:
    for found in posix.scandir(path):
        if found.is_dir(follow_symlinks=False):
            remove_tree(found.path)
        else:
            posix.unlink(found.path)
    posix.rmdir(path)


def op_remove(rid: bytes, user: User, path: bytes) -> None:
    path = user.path(path)
    try:
        if posix.lstat(path).st_mode & KIND == DIRECTORY:
            remove_tree(path)
        else:
            posix.unlink(path)
    except FileNotFoundError:
        pass
    send(rid, b"ok")


def regular(fd: int) -> int:
    """The size of a regular file; anything else is refused."""
    st = posix.fstat(fd)
    if st.st_mode & KIND == DIRECTORY:
        raise OSError(errno.EISDIR, "is a directory")
    if st.st_mode & KIND != FILE:
        raise OSError(errno.EINVAL, "not a regular file")
    return st.st_size


def op_read(rid: bytes, user: User, path: bytes) -> None:
    path = user.path(path)
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        regular(fd)
        send(rid, b"ok", [path], fd)
    finally:
        posix.close(fd)


def op_write(rid: bytes, user: User, path: bytes, *pairs: bytes) -> None:
    """Open for writing, empty, owned by the user, with exactly these metadata."""
    path = user.path(path)
    if isdir(path):
        raise OSError(errno.EISDIR, "is a directory")
    make_parents(dirname(path), user)
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_NONBLOCK | posix.O_CLOEXEC
    fd = posix.open(path, flags, 0o644)
    try:
        if regular(fd):
            posix.ftruncate(fd, 0)
        posix.fchown(fd, user.uid, user.gid)
        write_metadata(fd, dict(zip(pairs[::2], pairs[1::2], strict=True)))
        send(rid, b"ok", [path, *metadata(fd)], fd)
    finally:
        posix.close(fd)


def op_watch(
    rid: bytes, user: User, path: bytes, recursive: bytes, include_entry: bytes
) -> None:
    from fswatch import Watch

    path = user.path(path)
    posix.stat(path)
    if not isdir(path):
        raise OSError(errno.ENOTDIR, "path is not a directory")
    watch = Watch(
        path,
        lambda fields: send(rid, b"event", fields),
        recursive=recursive == b"1",
        include_entry=include_entry == b"1",
    )
    watches[watch.fd] = rid, watch
    poll.register(watch.fd, select.POLLIN)
    send(rid, b"event", [b"S", b""])


def op_unwatch(rid: bytes, user: User, watch_rid: bytes) -> None:
    for fd, (known, _) in list(watches.items()):
        if known == watch_rid:
            poll.unregister(fd)
            del watches[fd]
            posix.close(fd)
    send(rid, b"ok")


LONG = {b"list", b"remove"}  # in a child, so that others do not wait
OPS = {
    b"user": op_user,
    b"stat": op_stat,
    b"mkdir": op_mkdir,
    b"move": op_move,
    b"list": op_list,
    b"remove": op_remove,
    b"read": op_read,
    b"write": op_write,
    b"watch": op_watch,
    b"unwatch": op_unwatch,
}


def serve(message: bytes) -> None:
    rid, op, user, *arguments = message.split(b"\0")
    if op in LONG and posix.fork():
        return
    try:
        OPS[op](rid, User(user), *arguments)  # type: ignore[operator]
    except OSError as problem:
        text = posix.strerror(problem.errno or errno.EIO)
        if problem.filename is None and problem.strerror:
            text = problem.strerror
        send(rid, b"err", [b"%d" % (problem.errno or errno.EIO), text.encode()])
    except Exception as problem:  # the outermost loop of a request
        send(rid, b"err", [b"%d" % errno.EINVAL, repr(problem)[:200].encode()])
    if op in LONG:
        posix._exit(0)


def main() -> None:
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps
    poll.register(3, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == 3:
                message = sock.recv(REQUEST_BYTES)
                if not message:
                    return
                serve(message)
            elif fd in watches:
                watches[fd][1].ready()
