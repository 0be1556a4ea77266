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
DEFAULT_SIGNALS = (
    _signal.SIGPIPE,
    _signal.SIGCHLD,
    _signal.SIGXFSZ,
    _signal.SIGTERM,
    _signal.SIGINT,
    _signal.SIGHUP,
)

running = set()  # pids of commands
ended = {}  # pid -> exit code, negative for a signal
waiting = {}  # pid -> [(connection, request)]
dials = {}  # descriptor -> (socket, connection, request)
connections = {}  # descriptor -> socket
poll = select.poll()
deadline = time.monotonic() + float(posix.environ.get(b"KODE_TTL", b"300"))


def answer(connection, request, code, value=0, fds=()):
    """Send an answer; a runtime that went away is not our concern."""
    packet = b"\0".join((request, str(code).encode(), str(value).encode()))
    rights = b"".join(fd.to_bytes(4, "little") for fd in fds)
    extra = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
    try:
        connection.sendmsg([packet], extra)
    except OSError:
        pass


def receive(connection):
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


def find_program(name, environment):
    """The path of a program, looked up in the command's own PATH."""
    if b"/" in name:
        return name
    for folder in environment.get(b"PATH", b"/usr/bin:/bin").split(b":"):
        path = folder + b"/" + name
        if posix.access(path, posix.X_OK):
            return path
    return name


def open_terminal(size, uid):
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


def spawn(arguments, environment, cwd, uid, gid, groups, actions):
    """Start a command as a user.

    The real ids are changed around the spawn, which then makes them the child's
    (resetids); this process has one thread, so nobody else sees them.
    """
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


def do_exec(connection, request, fds, uid, gid, groups, cwd, size, count, *rest):
    """exec: start a command; answers its pid and, with a size, its terminal."""
    uid, gid, count = int(uid), int(gid), int(count)
    environment = dict(pair.split(b"=", 1) for pair in rest[count:])
    members = [int(group) for group in groups.split(b",") if group]
    masters = []
    try:
        if size:
            master, actions = open_terminal(size, uid)
            masters.append(master)
        else:
            actions = place(fds)
        pid = spawn(list(rest[:count]), environment, cwd, uid, gid, members, actions)
        ended.pop(pid, None)
        running.add(pid)
        score(pid)
        answer(connection, request, 0, pid, masters)
    finally:
        for master in masters:
            posix.close(master)


def place(fds):
    """Make the descriptors the child's 0, 1, 2, ... whatever their numbers are."""
    high = []
    for number, fd in enumerate(fds):
        if fd < len(fds):
            # Below the targets it could be overwritten before its turn.
            fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)
            fds.append(fd)
        high.append((posix.POSIX_SPAWN_DUP2, fd, number))
        if len(high) == MAX_FDS:
            break
    return high


def score(pid):
    """Let the kernel pick the command before PID 1 when memory is short."""
    try:
        fd = posix.open("/proc/" + str(pid) + "/oom_score_adj", posix.O_WRONLY)
    except OSError:
        return
    try:
        posix.write(fd, COMMAND_OOM_SCORE)
    except OSError:
        pass
    finally:
        posix.close(fd)


def children(pid):
    """Pids of the direct children."""
    path = "/proc/" + str(pid) + "/task/" + str(pid) + "/children"
    try:
        fd = posix.open(path, posix.O_RDONLY)
    except OSError:
        return []
    try:
        return [int(word) for word in posix.read(fd, 65536).split()]
    finally:
        posix.close(fd)


def do_kill(connection, request, fds, pid, number, tree):
    """kill: a signal to a process, or with tree to its group and descendants."""
    pid, number = int(pid), int(number)
    posix.kill(pid, number) if tree == b"0" else None
    if tree != b"0":
        found = [pid]
        for parent in found:
            found.extend(children(parent))
        for target in (-pid, *reversed(found)):
            try:
                posix.kill(target, number)
            except OSError:
                pass
    answer(connection, request, 0)


def do_all(connection, request, fds, number):
    """all: a signal to every process but this one."""
    try:
        posix.kill(-1, int(number))
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise
    answer(connection, request, 0)


def do_wait(connection, request, fds, pid):
    """wait: answers the exit code, at once or when the command ends."""
    pid = int(pid)
    if pid in ended:
        answer(connection, request, 0, ended[pid])
    elif pid in running:
        waiting.setdefault(pid, []).append((connection, request))
    else:
        answer(connection, request, errno.ESRCH)


def do_dial(connection, request, fds, port):
    """dial: connect to a port on loopback and pass the socket."""
    dial(connection, request, _socket.AF_INET, "127.0.0.1", int(port))


def dial(connection, request, family, host, port):
    kind = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    try:
        dialled = _socket.socket(family, kind, 0)
    except OSError as error:
        answer(connection, request, error.errno)
        return
    code = dialled.connect_ex((host, port))
    if code == errno.EINPROGRESS:
        dials[dialled.fileno()] = (dialled, connection, request, port)
        poll.register(dialled.fileno(), select.POLLOUT)
        return
    finish_dial(dialled, connection, request, port, code)


def finish_dial(dialled, connection, request, port, code):
    """Pass the socket; a server that listens on IPv6 alone gets a second try."""
    if code == errno.ECONNREFUSED and dialled.family == _socket.AF_INET:
        dialled.close()
        dial(connection, request, _socket.AF_INET6, "::1", port)
        return
    answer(connection, request, code, 0, () if code else (dialled.fileno(),))
    dialled.close()


def do_deadline(connection, request, fds, seconds):
    """deadline: end the sandbox in so many seconds."""
    global deadline
    deadline = time.monotonic() + float(seconds)
    answer(connection, request, 0)


def do_ping(connection, request, fds):
    """ping: answers the number of running commands."""
    answer(connection, request, 0, len(running))


OPERATIONS = {
    b"exec": do_exec,
    b"kill": do_kill,
    b"all": do_all,
    b"wait": do_wait,
    b"dial": do_dial,
    b"deadline": do_deadline,
    b"ping": do_ping,
}


def reap():
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
        for connection, request in waiting.pop(pid, ()):
            answer(connection, request, 0, code)


def accept(listener):
    fd, _ = listener._accept()
    connections[fd] = _socket.socket(fileno=fd)
    poll.register(fd, select.POLLIN)


def serve(fd):
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
    try:
        OPERATIONS[operation](connection, request, fds, *fields)
    except OSError as error:
        answer(connection, request, error.errno or errno.EIO)
    except (ValueError, KeyError, TypeError):
        answer(connection, request, errno.EINVAL)
    for passed in fds:
        posix.close(passed)


def main():
    # A change of the effective group makes the process non-dumpable: nobody in
    # here can trace it or read its descriptors.
    posix.setegid(1)
    posix.setegid(0)
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    ready, wakeup = posix.pipe()
    for fd in (ready, wakeup):
        posix.set_blocking(fd, False)
        posix.set_inheritable(fd, False)
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
                dialled, connection, request, port = dials.pop(fd)
                poll.unregister(fd)
                code = dialled.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
                finish_dial(dialled, connection, request, port, code)
            elif fd in connections:
                serve(fd)


main()
