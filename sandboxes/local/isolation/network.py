"""The way of sandboxes to the internet, and nowhere else.

One router, a network namespace with a bridge, serves all: each sandbox has a
veth on it with port isolation, nftables lets through what is public, and one
slirp4netns carries it out as ordinary connections of this user. The host's own
firewall and interfaces are not touched.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

BRIDGE = "kode0"
NETWORK = ipaddress.ip_network("10.203.0.0/16")
GATEWAY = "10.203.0.1"
RESOLVER = "10.0.2.3"  # slirp4netns' own
TOOLS = ("ip", "nft", "slirp4netns", "nsenter", "unshare")
# Nothing in here is ever reached: not the host, its networks, nor neighbours.
PRIVATE = (
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, "
    "172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3"
)
RULES = """
table inet kode {{
  chain input {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    iifname "tap0" accept
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    meta nfproto ipv6 drop
    iifname "{bridge}" ip daddr {resolver} udp dport 53 accept
    iifname "{bridge}" ip daddr {resolver} tcp dport 53 accept
    iifname "{bridge}" ip daddr {{ {denied} }} reject
    iifname "{bridge}" oifname "tap0" accept
  }}
}}
table ip kode_nat {{
  chain out {{
    type nat hook postrouting priority 100;
    oifname "tap0" masquerade
  }}
}}
"""


def missing_tools() -> list[str]:
    """The programs that are not here; without them sandboxes have no network."""
    return [name for name in TOOLS if not shutil.which(name)]


class Router:
    """The namespace that all sandboxes' networks meet in.

    It and its helper outlive the runtime like the sandboxes do; `state` is the
    file by which the next run finds them.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._pids: list[int] = []
        self._lock = asyncio.Lock()
        self._taken: dict[str, int] = {}

    @property
    def is_up(self) -> bool:
        """Whether both processes live."""
        return len(self._pids) == 2 and all(map(_is_ours, self._pids))

    async def join(self, sandbox_id: str, pid: int) -> None:
        """Give the sandbox whose PID 1 is `pid` here a way out."""
        async with self._lock:
            if not self.is_up:
                await self._start()
            number = self._number(sandbox_id)
        name, address = f"v{number}", NETWORK[number]
        await _run(
            _in(self._pids[0], "ip", "-batch", "-"),
            f"link add {name} type veth peer name eth0 netns {pid}\n"
            f"link set {name} master {BRIDGE} up\n"
            f"link set {name} type bridge_slave isolated on\n",
        )
        await _run(
            _in(pid, "ip", "-batch", "-"),
            f"addr add {address}/{NETWORK.prefixlen} dev eth0\n"
            "link set eth0 up\n"
            f"route add default via {GATEWAY}\n",
        )

    async def leave(self, sandbox_id: str) -> None:
        """Take the way out again; harmless when there is none."""
        number = self._taken.pop(sandbox_id, None)
        if number is not None and self.is_up:
            with contextlib.suppress(OSError):
                await _run(_in(self._pids[0], "ip", "link", "del", f"v{number}"))

    def adopt(self, numbers: dict[str, int]) -> None:
        """Find the router of an earlier run; `numbers` are its sandboxes'."""
        with contextlib.suppress(OSError, ValueError):
            pids = json.loads(self._state.read_text())
            self._pids = pids if all(map(_is_ours, pids)) else []
        if self.is_up:
            self._taken = dict(numbers)

    def number(self, sandbox_id: str) -> int | None:
        """The sandbox's number on the network, None when it has no way out."""
        return self._taken.get(sandbox_id)

    def stop(self) -> None:
        """End the router. Sandboxes that are still there lose their way out."""
        for pid in reversed(self._pids):
            if _is_ours(pid):
                os.kill(pid, signal.SIGKILL)
        self._pids = []
        self._state.unlink(missing_ok=True)

    def _number(self, sandbox_id: str) -> int:
        used = set(self._taken.values())
        number = next(n for n in range(2, NETWORK.num_addresses - 1) if n not in used)
        self._taken[sandbox_id] = number
        return number

    async def _start(self) -> None:
        self.stop()
        self._taken.clear()
        holder = _spawn("unshare", "--net", "--", "sleep", "infinity")
        self._pids = [holder]
        await _until(lambda: _namespace(holder) != _namespace(os.getpid()))
        denied = ", ".join([PRIVATE, *_own_addresses()])
        rules = RULES.format(bridge=BRIDGE, resolver=RESOLVER, denied=denied)
        await _run(
            _in(holder, "ip", "-batch", "-"),
            "link set lo up\n"
            f"link add {BRIDGE} type bridge\n"
            f"addr add {GATEWAY}/{NETWORK.prefixlen} dev {BRIDGE}\n"
            f"link set {BRIDGE} up\n",
        )
        await _run(_in(holder, "nft", "-f", "-"), rules)
        await _run(_in(holder, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
        helper = _spawn(
            "slirp4netns",
            "--configure",
            "--mtu=1500",
            "--disable-host-loopback",
            str(holder),
            "tap0",
        )
        self._pids.append(helper)
        await _until(lambda: _has_tap(holder))
        self._state.write_text(json.dumps(self._pids))


def _spawn(*command: str) -> int:
    """Start a helper that outlives us; with an empty environment."""
    process = subprocess.Popen(
        command,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return process.pid


def _in(pid: int, *command: str) -> list[str]:
    """The command, run in the network of a process."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *command]


async def _run(command: list[str], text: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate(text.encode())
    if process.returncode:
        words = " ".join(command[3:])
        raise OSError(f"{words}: {errors.decode(errors='replace').strip()}")


async def _until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while not condition():
        if loop.time() > end:
            raise OSError("the sandboxes' network did not come up")
        await asyncio.sleep(0.005)


def _namespace(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return ""


def _has_tap(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "tap0" in Path(f"/proc/{pid}/net/route").read_text()
    return False


def _is_ours(pid: int) -> bool:
    """Whether the process is a live helper of a router, not one that took its pid."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return words[0].endswith((b"sleep", b"slirp4netns", b"unshare"))
    return False


def _own_addresses() -> list[str]:
    """Every IPv4 address of this host outside the private ranges."""
    done = subprocess.run(
        ["ip", "-json", "-4", "addr"], capture_output=True, check=False
    )
    found = set()
    for link in json.loads(done.stdout or b"[]"):
        for entry in link.get("addr_info", ()):
            if ipaddress.ip_address(entry["local"]).is_global:
                found.add(entry["local"])
    return sorted(found)
