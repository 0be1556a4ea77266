"""PID 1 of a sandbox: starts commands and terminals, dials ports, keeps the deadline.

Runs under the private interpreter and imports built-in modules only, which keeps
it at about 3 MB. Descriptor 3 is a listening SOCK_SEQPACKET socket that the
runtime has bound outside; nothing of it is visible in here.

One message is one packet of NUL-joined fields: `operation, request, ...`. The
answer is `request, errno, value`, with descriptors by SCM_RIGHTS.
"""

import _signal
import _socket
import errno
import fcntl
import posix
import select
import time

LISTENER = 3
PACKET_BYTES = 1 << 20
MAX_FDS = 8
# Exits that nobody asked for yet; pids come around again long after.
KEPT_EXITS = 1024
# Above PID 1's own score: when memory ends the kernel takes a command first.
COMMAND_OOM_SCORE = b"600"
TIOCSPTLCK, TIOCGPTN, TIOCSWINSZ = 0x40045431, 0x80045430, 0x5414
DEFAULT_SIGNALS = tuple(
    getattr(_signal, f"SIG{name}")
    for name in ("PIPE", "CHLD", "XFSZ", "TERM", "INT", "HUP")
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

Asker = tuple[_socket.socket, bytes]  # a connection and its request
Action = tuple[int, ...] | tuple[int, int, str, int, int]  # of posix_spawn

running: set[int] = set()  # pids of commands
ended: dict[int, int] = {}  # pid -> exit code, negative for a signal
waiting: dict[int, list[Asker]] = {}  # pid -> who asked
dials: dict[int, tuple[_socket.socket, Asker, int]] = {}
connections: dict[int, _socket.socket] = {}  # by descriptor
poll = select.poll()
deadline = time.monotonic() + float(posix.environ.get(b"KODE_TTL", b"300"))


def answer(
    who: Asker,
    code: int,
    value: int = 0,
    fds: tuple[int, ...] = (),
) -> None:
    """Send an answer; a runtime that went away is not our concern."""
    connection, request = who
    packet = b"\0".join((request, str(code).encode(), str(value).encode()))
    rights = b"".join(fd.to_bytes(4, "little") for fd in fds)
    extra = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
    try:
        connection.sendmsg([packet], extra)
    except OSError:
        pass


def receive(connection: _socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors."""
    packet, extra, _, _ = connection.recvmsg(
        PACKET_BYTES, _socket.CMSG_SPACE(4 * MAX_FDS), _socket.MSG_CMSG_CLOEXEC
    )
    fds = []
    for level, kind, data in extra:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            for start in range(0, len(data) - 3, 4):
                fds.append(int.from_bytes(data[start : start + 4], "little"))
    return packet, fds


def find_program(name: bytes, environment: dict[bytes, bytes]) -> bytes:
    """The path of a program, looked up in the command's own PATH."""
    if b"/" in name:
        return name
    for folder in environment.get(b"PATH", b"/usr/bin:/bin").split(b":"):
        path = folder + b"/" + name
        if posix.access(path, posix.X_OK):
            return path
    return name


def open_terminal(size: bytes, uid: int) -> tuple[int, list[Action]]:
    """A new terminal: its master and what makes it descriptors 0, 1 and 2."""
    master = posix.open("/dev/ptmx", posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, bytes(4))
    number = int.from_bytes(fcntl.ioctl(master, TIOCGPTN, bytes(4)), "little")
    name = "/dev/pts/" + str(number)
    rows, cols = (int(part).to_bytes(2, "little") for part in size.split(b"x"))
    fcntl.ioctl(master, TIOCSWINSZ, rows + cols + bytes(4))
    posix.chown(name, uid, 5)
    # The first terminal that a session leader opens becomes its own.
    return master, [
        (posix.POSIX_SPAWN_OPEN, 0, name, posix.O_RDWR, 0),
        (posix.POSIX_SPAWN_DUP2, 0, 1),
        (posix.POSIX_SPAWN_DUP2, 0, 2),
    ]


def spawn(
    arguments: list[bytes],
    environment: dict[bytes, bytes],
    cwd: bytes,
    ids: tuple[int, int, list[int]],
    actions: list[Action],
) -> int:
    """Start a command as a user.

    The real ids are changed around the spawn, which then makes them the child's
    (resetids); this process has one thread, so nobody else sees them.
    """
    uid, gid, groups = ids
    try:
        posix.setgroups(groups)
        posix.setresgid(gid, 0, 0)
        posix.setresuid(uid, 0, 0)
        posix.chdir(cwd)
        return posix.posix_spawn(
            find_program(arguments[0], environment),
            arguments,
            environment,
            file_actions=actions,
            setsid=True,
            resetids=True,
            setsigmask=[],
            setsigdef=DEFAULT_SIGNALS,
        )
    finally:
        posix.setresuid(0, 0, 0)
        posix.setresgid(0, 0, 0)
        posix.setgroups([])
        posix.chdir("/")


def do_exec(who: Asker, fds: list[int], *fields: bytes) -> None:
    """exec: uid, gid, groups, cwd, size, number of arguments, arguments, environment.

    Starts a command; answers its pid and, with a size, its terminal.
    """
    groups, cwd, size = fields[2:5]
    uid, gid, count, rest = int(fields[0]), int(fields[1]), int(fields[5]), fields[6:]
    environment = dict(pair.split(b"=", 1) for pair in rest[count:])
    members = [int(group) for group in groups.split(b",") if group]
    masters: list[int] = []
    try:
        if size:
            master, actions = open_terminal(size, uid)
            masters.append(master)
        else:
            actions = place(fds)
        ids = (uid, gid, members)
        pid = spawn(list(rest[:count]), environment, cwd, ids, actions)
        ended.pop(pid, None)
        running.add(pid)
        score(pid)
        answer(who, 0, pid, tuple(masters))
    finally:
        for master in masters:
            posix.close(master)


def place(fds: list[int]) -> list[Action]:
    """Make the descriptors the child's 0, 1, 2, ... whatever their numbers are."""
    high: list[Action] = []
    count = len(fds)
    for number in range(count):
        fd = fds[number]
        if fd < count:
            # Below the targets it could be overwritten before its turn.
            fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)
            fds.append(fd)
        high.append((posix.POSIX_SPAWN_DUP2, fd, number))
    return high


def score(pid: int) -> None:
    """Let the kernel pick the command before PID 1 when memory is short."""
    try:
        fd = posix.open(f"/proc/{pid}/oom_score_adj", posix.O_WRONLY)
    except OSError:
        return
    try:
        posix.write(fd, COMMAND_OOM_SCORE)
    except OSError:
        pass  # it has ended already
    posix.close(fd)


def children(pid: int) -> list[int]:
    """Pids of the direct children."""
    try:
        fd = posix.open(f"/proc/{pid}/task/{pid}/children", posix.O_RDONLY)
    except OSError:
        return []
    try:
        found = b""
        while piece := posix.read(fd, 65536):
            found += piece
        return [int(word) for word in found.split()]
    except OSError:
        return []
    finally:
        posix.close(fd)


def do_kill(
    who: Asker,
    fds: list[int],
    target: bytes,
    signal: bytes,
    tree: bytes,
) -> None:
    """kill: a signal to a process, or with tree to its group and descendants."""
    pid, number, reached = int(target), int(signal), 0
    if pid <= 1:
        raise OSError(errno.ESRCH, "No such process")
    if tree == b"0":
        posix.kill(pid, number)
        answer(who, 0)
        return
    found = [pid]
    for parent in found:
        found.extend(children(parent))
    for one in (-pid, *reversed(found)):
        try:
            posix.kill(one, number)
            reached += 1
        except OSError:
            pass
    answer(who, 0 if reached else errno.ESRCH)


def do_all(who: Asker, fds: list[int], number: bytes) -> None:
    """all: a signal to every process but this one."""
    try:
        posix.kill(-1, int(number))
    except ProcessLookupError:
        pass
    answer(who, 0)


def do_wait(who: Asker, fds: list[int], command: bytes) -> None:
    """wait: answers the exit code, at once or when the command ends."""
    pid = int(command)
    if pid in ended:
        answer(who, 0, ended[pid])
    elif pid in running:
        waiting.setdefault(pid, []).append(who)
    else:
        answer(who, errno.ESRCH)


def do_dial(who: Asker, fds: list[int], port: bytes) -> None:
    """dial: connect to a port on loopback and pass the socket."""
    dial(who, _socket.AF_INET, "127.0.0.1", int(port))


def dial(who: Asker, family: int, host: str, port: int) -> None:
    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    try:
        dialled = _socket.socket(family, kind, 0)
    except OSError as error:
        answer(who, error.errno or errno.EIO)
        return
    code = dialled.connect_ex((host, port))
    if code == errno.EINPROGRESS:
        dials[dialled.fileno()] = (dialled, who, port)
        poll.register(dialled.fileno(), select.POLLOUT)
        return
    finish_dial(dialled, who, port, code)


def finish_dial(dialled: _socket.socket, who: Asker, port: int, code: int) -> None:
    """Pass the socket; a server that listens on IPv6 alone gets a second try."""
    if code == errno.ECONNREFUSED and dialled.family == _socket.AF_INET:
        dialled.close()
        dial(who, _socket.AF_INET6, "::1", port)
        return
    answer(who, code, 0, () if code else (dialled.fileno(),))
    dialled.close()


def do_deadline(who: Asker, fds: list[int], seconds: bytes) -> None:
    """deadline: end the sandbox in so many seconds."""
    global deadline
    deadline = time.monotonic() + float(seconds)
    answer(who, 0)


def do_ping(who: Asker, fds: list[int]) -> None:
    """ping: the number of running commands."""
    answer(who, 0, len(running))


OPERATIONS: dict[bytes, "Callable[..., None]"] = {
    b"exec": do_exec,
    b"kill": do_kill,
    b"all": do_all,
    b"wait": do_wait,
    b"dial": do_dial,
    b"deadline": do_deadline,
    b"ping": do_ping,
}


def reap() -> None:
    """Collect every child that ended, adopted ones too."""
    while True:
        try:
            pid, status = posix.waitpid(-1, posix.WNOHANG)
        except OSError:
            return
        if not pid:
            return
        if pid not in running:
            continue
        running.discard(pid)
        code = posix.waitstatus_to_exitcode(status)
        ended[pid] = code
        if len(ended) > KEPT_EXITS:
            del ended[next(iter(ended))]
        for who in waiting.pop(pid, ()):
            answer(who, 0, code)


def accept(listener: _socket.socket) -> None:
    """Take a runtime's connection; one that went away again is no failure."""
    try:
        fd, _ = listener._accept()  # type: ignore[attr-defined] # not in the stubs
    except OSError:
        return
    connections[fd] = _socket.socket(fileno=fd)
    poll.register(fd, select.POLLIN)


def serve(fd: int) -> None:
    """Do what the next packet of a connection asks."""
    connection = connections[fd]
    try:
        packet, fds = receive(connection)
    except OSError:
        packet, fds = b"", []
    if not packet:
        poll.unregister(fd)
        connections.pop(fd).close()
        return
    operation, request, *fields = packet.split(b"\0")
    who = (connection, request)
    try:
        OPERATIONS[operation](who, fds, *fields)
    except OSError as error:
        answer(who, error.errno or errno.EIO)
    except (ValueError, KeyError, TypeError):
        answer(who, errno.EINVAL)
    for passed in fds:
        posix.close(passed)


def main() -> None:
    # Makes the process non-dumpable: nobody in here can trace or read it.
    posix.setegid(1)
    posix.setegid(0)
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    ready, wakeup = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
    _signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    posix.set_inheritable(LISTENER, False)
    listener = _socket.socket(fileno=LISTENER)
    poll.register(LISTENER, select.POLLIN)
    poll.register(ready, select.POLLIN)
    while True:
        left_s = max(0, min(deadline - time.monotonic(), 3600))
        events = poll.poll(left_s * 1000)
        # Queued packets first: a new deadline that was sent before a thaw counts.
        if not events and time.monotonic() >= deadline:
            posix._exit(0)
        for fd, _ in events:
            if fd == LISTENER:
                accept(listener)
            elif fd == ready:
                posix.read(ready, 512)
                reap()
            elif fd in dials:
                dialled, who, port = dials.pop(fd)
                poll.unregister(fd)
                code = dialled.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
                finish_dial(dialled, who, port, code)
            elif fd in connections:
                serve(fd)


main()
