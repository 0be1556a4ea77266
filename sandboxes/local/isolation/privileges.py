"""Who holds what: root stays with a small launcher, the server gives it up."""

import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from sandboxes.local.contract import IsolationUnavailable

from . import probe, syscalls
from .oci import PATH

# The server's user where root starts it; has no account and owns nothing else.
SERVER_ID = 65532
logger = logging.getLogger(__name__)
_INSIDE = "KODE_RUNTIME_UNSHARED"


def enter_user_namespace() -> None:
    """Start this program again as root of a user namespace of its own.

    An ordinary user gets his mounts and networks that way, and holds nothing
    outside. Returns at once for root and in the restarted program.
    """
    if os.geteuid() == 0 or os.environ.pop(_INSIDE, ""):
        return
    problem = probe.problem() or probe.unprivileged_problem()
    unshare = shutil.which("unshare")
    if problem or not unshare:
        raise IsolationUnavailable(problem or "unshare is missing (util-linux).")
    os.environ[_INSIDE] = "1"
    os.execv(
        unshare,
        [
            unshare,
            "--user",
            "--map-root-user",
            "--map-auto",
            "--mount",
            "--propagation=private",
            "--",
            *sys.orig_argv,
        ],
    )


def fork_launcher(serve: Callable[[socket.socket], None]) -> socket.socket:
    """Fork the process that keeps the privileges; our end of its socket.

    Call before there is any thread. It ends when the server does, by the end of
    the socket: signals to the group are not for it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    code = 1
    try:
        os.environ.clear()
        os.environ["PATH"] = PATH
        _close_others(theirs.fileno())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        syscalls.prctl(syscalls.PR_SET_NAME, b"kode-launcher")
        serve(theirs)
        code = 0
    except Exception:
        logger.exception("the launcher failed")
    finally:
        os._exit(code)


def _close_others(kept: int) -> None:
    """Hold no descriptor of whoever started us: helpers and sandboxes outlive him."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 20)


def server_id(root: Path) -> int:
    """The user that serves: the owner of the data, else SERVER_ID; 0 stays 0 in a
    user namespace, where it is nobody outside."""
    if not probe.is_root():
        return os.geteuid()
    return root.stat().st_uid or SERVER_ID


def give_up_root(uid: int, needed: list[Path]) -> None:
    """Become `uid` for good, with the folders it needs still in reach.

    An interpreter below /root is out of an ordinary user's reach; in a mount
    namespace of our own such folders are covered, and only what is needed shows.
    """
    if not probe.is_root():
        syscalls.drop_capabilities()
        return
    syscalls.private_mounts()
    for _ in range(16):
        if not _uncover(needed):
            break
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    syscalls.drop_capabilities()


def _uncover(needed: list[Path]) -> bool:
    """Cover the first folder that bars the way; False when there is none."""
    for path in needed:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & 0o001:
                _cover(parent, [p for p in needed if p.is_relative_to(parent)])
                return True
    return False


def _cover(folder: Path, needed: list[Path]) -> None:
    kept = [(path, os.open(path, os.O_PATH)) for path in sorted(needed)]
    syscalls.mount("tmpfs", folder, "tmpfs", 0, "mode=0755,size=64k")
    for path, descriptor in kept:
        path.mkdir(parents=True, exist_ok=True)
        flags = syscalls.MS_BIND | syscalls.MS_REC
        syscalls.mount(f"/proc/self/fd/{descriptor}", path, "", flags)
        os.close(descriptor)
