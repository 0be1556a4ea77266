"""Which ports servers inside a sandbox listen on, found by looking there."""

import shlex
import time
from dataclasses import dataclass

from . import gateway
from .errors import SandboxError
from .models import Sandbox

FRESH_S = 1.0
MAX_PORTS = 100
# The backend's own helper inside every sandbox.
HIDDEN = frozenset({49983})
# One pass over the kernel's tables, then the owners of the sockets by inode. It
# needs nothing but a shell and coreutils. Even root may see only its own
# descriptors in a sandbox (no CAP_SYS_PTRACE), so it looks as the user too.
OWNERS = r"""
for d in /proc/[0-9]*; do
  links=$(ls -l "$d/fd" 2>/dev/null | grep -o 'socket:\[[0-9]*\]') || continue
  name=$(cat "$d/comm" 2>/dev/null) || continue
  for link in $links; do printf 'P %s %s %s\n' "$link" "${d#/proc/}" "$name"; done
done
"""
COMMAND = rf"""
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4=="0A"{{print "L",$2,$10}}'
export OWNERS={shlex.quote(OWNERS)}
sh -c "$OWNERS"
setpriv --reuid user --regid user --clear-groups sh -c "$OWNERS" 2>/dev/null
true
"""
_cache: dict[str, tuple[float, "list[Port]"]] = {}


@dataclass(frozen=True)
class Port:
    """A listening port; `process` is empty when its owner cannot be seen."""

    number: int
    process: str
    pid: int


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
    owners: dict[str, tuple[int, str]] = {}
    inodes: dict[int, str] = {}
    for line in text.splitlines():
        words = line.split(maxsplit=3)
        if len(words) == 3 and words[0] == "L":
            number = int(words[1].rpartition(":")[2], 16)
            inodes.setdefault(number, words[2])
        elif len(words) == 4 and words[0] == "P" and words[2].isdecimal():
            inode = words[1].removeprefix("socket:[").removesuffix("]")
            owners.setdefault(inode, (int(words[2]), words[3][:40]))
    found = []
    for number, inode in sorted(inodes.items()):
        pid, process = owners.get(inode, (0, ""))
        if number not in HIDDEN:
            found.append(Port(number, process, pid))
    return found[:MAX_PORTS]
