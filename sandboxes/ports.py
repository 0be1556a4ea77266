"""Which ports servers inside a sandbox listen on, found by looking there."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from . import gateway
from .errors import SandboxError
from .models import Sandbox

FRESH_S = 1.0
MAX_PORTS = 100
# The backend's own helper inside every sandbox.
HIDDEN = frozenset({49983})
LISTENING = "0A"
# The kernel's tables, then by inode who holds the sockets, since when, and how
# they are called. A handful of processes, whatever runs inside. Even root may see
# only its own descriptors in a sandbox (no CAP_SYS_PTRACE), so it looks as the user
# too.
OWNERS = r"find /proc/[0-9]*/fd -lname 'socket:*' -printf 'S %p %l\n' 2>/dev/null"
COMMAND = rf"""
grep -h ' {LISTENING} ' /proc/net/tcp /proc/net/tcp6 2>/dev/null | head -n 1000
{OWNERS} | head -c 500000
setpriv --reuid user --regid user --clear-groups {OWNERS} | head -c 500000
stat -c 'T %n %Y' /proc/[0-9]* 2>/dev/null | head -n 5000
grep -H . /proc/[0-9]*/comm 2>/dev/null | head -c 500000
"""
LISTENER = re.compile(
    rf"\s*\d+: [0-9A-F]+:([0-9A-F]{{4}}) \S+ {LISTENING}(?: \S+ \S+ \S+)\s+\d+\s+\d+ "
    r"(\d{1,20}) .*"
)
SOCKET = re.compile(r"S /proc/(\d{1,9})/fd/\d+ socket:\[(\d{1,20})\]")
BEGUN = re.compile(r"T /proc/(\d{1,9}) (\d{1,11})")
COMM = re.compile(r"/proc/(\d{1,9})/comm:(.*)")
_cache: dict[str, tuple[float, "list[Port]"]] = {}


@dataclass(frozen=True)
class Port:
    """A listening port.

    `process` is empty, `pid` 0 and `since`, when that process began, None when
    its owner cannot be seen.
    """

    number: int
    process: str
    pid: int
    since: datetime | None = None


def listening(sandbox: Sandbox) -> list[Port]:
    """The ports, lowest first; an answer is up to FRESH_S old."""
    known = _cache.get(sandbox.code)
    if known and time.monotonic() - known[0] < FRESH_S:
        return known[1]
    result = gateway.run(sandbox, COMMAND, user="root", cwd="/", timeout_s=10)
    found = parse(result.stdout)
    if len(_cache) > 1000:
        _cache.clear()
    _cache[sandbox.code] = (time.monotonic(), found)
    return found


def listening_or_none(sandbox: Sandbox) -> list[Port]:
    """The ports, none when the sandbox cannot be asked now."""
    try:
        return listening(sandbox)
    except SandboxError:
        return []


def parse(text: str) -> list[Port]:
    """The ports in what COMMAND prints; odd lines are left out."""
    inodes: dict[int, str] = {}
    owners: dict[str, int] = {}
    names: dict[int, str] = {}
    begun: dict[int, int] = {}
    for line in text.splitlines():
        if found := COMM.fullmatch(line):
            names[int(found[1])] = found[2]
        elif found := SOCKET.fullmatch(line):
            owners.setdefault(found[2], int(found[1]))
        elif found := BEGUN.fullmatch(line):
            begun[int(found[1])] = int(found[2])
        elif found := LISTENER.fullmatch(line):
            inodes.setdefault(int(found[1], 16), found[2])
    ports = []
    for number, inode in sorted(inodes.items()):
        pid = owners.get(inode, 0)
        since = datetime.fromtimestamp(begun[pid], UTC) if pid in begun else None
        if number and number not in HIDDEN:
            ports.append(Port(number, names.get(pid, "")[:40], pid, since))
    return ports[:MAX_PORTS]
