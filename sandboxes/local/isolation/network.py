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
import socket
from collections.abc import Callable
from pathlib import Path

from .oci import PATH

BRIDGE = "kode0"
NETWORK = ipaddress.ip_network("10.203.0.0/16")
GATEWAY = "10.203.0.1"
RESOLVER = "10.0.2.3"  # slirp4netns' own
TOOLS = ("ip", "nft", "slirp4netns", "nsenter", "unshare", "flock")
# Its parser meets hostile packets: no files, no capability, few system calls.
# It ends with the router, which holds the other end of descriptor TIE.
TIE = 9
HELPER = (
    "slirp4netns",
    "--configure",
    "--mtu=1500",
    "--disable-host-loopback",
    "--enable-sandbox",
    "--enable-seccomp",
    f"--exit-fd={TIE}",
)
# Without a runtime (nobody holds the lock) and sandboxes (v2, v3, ...) it is over.
KEEPER = """
while sleep 15; do
  flock -n "$1" true && ! grep -q '^ *v[0-9]' /proc/self/net/dev && exit
done
"""
RTMGRP_IPV4_IFADDR = 0x10
TUNNEL = "/dev/net/tun"
# Nothing in here is ever reached: not the host, its networks, nor neighbours.
PRIVATE = (
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, "
    "172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3"
)
RULES = """
table inet kode {{
  set host {{
    type ipv4_addr; flags interval; auto-merge; elements = {{ {host} }}
  }}
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
    iifname "{bridge}" ip daddr @host reject
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
    """What the way out lacks here; without it sandboxes have no network."""
    missing = [name for name in TOOLS if not shutil.which(name, path=PATH)]
    if not os.access(TUNNEL, os.R_OK | os.W_OK):
        missing.append(f"access to {TUNNEL}")
    return missing


class Router:
    """The namespace that all sandboxes' networks meet in.

    It and its helper outlive the runtime like the sandboxes do; `state` is the
    file by which the next run finds them. They end by themselves once no runtime
    holds `lock` and no sandbox is on the bridge.
    """

    def __init__(self, state: Path, lock: Path) -> None:
        self._state, self._guard = state, lock
        self._processes: list[tuple[int, int]] = []
        self._lock = asyncio.Lock()
        self._taken: dict[str, int] = {}
        self._host: list[str] = []
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether both processes live."""
        return len(self._processes) == 2 and all(map(_lives, self._processes))

    async def join(self, sandbox_id: str, pid: int) -> None:
        """Give the sandbox whose PID 1 is `pid` here a way out."""
        async with self._lock:
            if not self.is_up:
                await self._start()
            number = self._number(sandbox_id)
        name, address = f"v{number}", NETWORK[number]
        try:
            await _run(
                _in(self._holder, "ip", "-batch", "-"),
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
        except BaseException:
            await self.leave(sandbox_id)
            raise

    async def leave(self, sandbox_id: str) -> None:
        """Take the way out again. Raises OSError when it is still there after."""
        number = self._taken.get(sandbox_id)
        if number is not None and self.is_up and self._has(f"v{number}"):
            try:
                await _run(_in(self._holder, "ip", "link", "del", f"v{number}"))
            except OSError:
                if self._has(f"v{number}"):
                    raise
        self._taken.pop(sandbox_id, None)

    def adopt(self, numbers: dict[str, int]) -> bool:
        """Find the router of an earlier run; `numbers` are its sandboxes'.

        False when it is gone: then each of them has to join again.
        """
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._processes = [
                (int(pid), int(begun))
                for pid, begun in json.loads(self._state.read_text())
            ]
        if self.is_up:
            self._taken = dict(numbers)
        return self.is_up

    def number(self, sandbox_id: str) -> int | None:
        """The sandbox's number on the network, None when it has no way out."""
        return self._taken.get(sandbox_id)

    def stop(self) -> None:
        """End the router. Sandboxes that are still there lose their way out."""
        for pid, begun in reversed(self._processes):
            if _lives((pid, begun)):
                os.killpg(pid, signal.SIGKILL)
        self._processes = []
        self._state.unlink(missing_ok=True)

    def watch(self) -> socket.socket:
        """Deny the host's new addresses as they come, from now on.

        The caller closes what it gets to stop that.
        """
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        changes = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        changes.bind((0, RTMGRP_IPV4_IFADDR))
        asyncio.get_running_loop().add_reader(changes, self._changed, changes)
        return changes

    def _changed(self, changes: socket.socket) -> None:
        with contextlib.suppress(OSError):  # an overflow means changes as well
            changes.recv(1 << 16)
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._deny_host())

    async def _deny_host(self) -> None:
        """Let nobody reach what this host answers on, as it is now."""
        while self.is_up and (found := await _own_addresses()) != self._host:
            elements = ", ".join(found)
            await _run(
                _in(self._holder, "nft", "-f", "-"),
                "flush set inet kode host\n"
                f"add element inet kode host {{ {elements} }}\n",
            )
            self._host = found

    @property
    def _holder(self) -> int:
        return self._processes[0][0]

    def _has(self, link: str) -> bool:
        table = Path(f"/proc/{self._holder}/net/dev")
        with contextlib.suppress(OSError):
            return f" {link}:" in table.read_text().replace("\n", "\n ")
        return False

    def _number(self, sandbox_id: str) -> int:
        if sandbox_id not in self._taken:
            used = set(self._taken.values())
            free = (n for n in range(2, NETWORK.num_addresses - 1) if n not in used)
            self._taken[sandbox_id] = next(free)
        return self._taken[sandbox_id]

    async def _start(self) -> None:
        self.stop()
        tied, tie = os.pipe()
        try:
            keeper = ("sh", "-c", KEEPER, "kode-router", str(self._guard))
            holder = _spawn(("unshare", "--net", "--", *keeper), {tie: TIE})
            await _until(lambda: _namespace(holder) != _namespace(os.getpid()))
            self._processes = [(holder, _begun(holder))]
            await self._configure()
            helper = _spawn((*HELPER, str(holder), "tap0"), {tied: TIE})
        finally:
            os.close(tied)
            os.close(tie)
        self._processes.append((helper, _begun(helper)))
        await _until(lambda: _has_tap(holder))
        self._state.write_text(json.dumps(self._processes))

    async def _configure(self) -> None:
        self._host = await _own_addresses()
        rules = RULES.format(
            bridge=BRIDGE,
            resolver=RESOLVER,
            denied=PRIVATE,
            host=", ".join(self._host),
        )
        await _run(
            _in(self._holder, "ip", "-batch", "-"),
            "link set lo up\n"
            f"link add {BRIDGE} type bridge\n"
            f"addr add {GATEWAY}/{NETWORK.prefixlen} dev {BRIDGE}\n"
            f"link set {BRIDGE} up\n",
        )
        await _run(_in(self._holder, "nft", "-f", "-"), rules)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        await _run(_in(self._holder, "sh", "-c", forward))


def _spawn(command: tuple[str, ...], inherit: dict[int, int]) -> int:
    """Start a helper that outlives us, in a session and with nothing of ours."""
    program = shutil.which(command[0], path=PATH)
    if not program:
        raise OSError(f"{command[0]} is missing")
    silent = [(os.POSIX_SPAWN_OPEN, n, "/dev/null", os.O_RDWR, 0) for n in range(3)]
    ties = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in inherit.items()]
    return os.posix_spawn(
        program, command, {"PATH": PATH}, file_actions=[*silent, *ties], setsid=True
    )


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


def _begun(pid: int) -> int:
    """When a process began, in ticks since boot; with the pid it names one process.

    Raises OSError when there is none.
    """
    line = Path(f"/proc/{pid}/stat").read_text()
    return int(line.rpartition(")")[2].split()[19])


def _lives(process: tuple[int, int]) -> bool:
    """Whether the process is there, and not another that got its pid."""
    pid, begun = process
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return _begun(pid) == begun and state != "Z"
    return False


async def _own_addresses() -> list[str]:
    """All that this host takes as itself, of any range: the kernel's own table."""
    command = ("ip", "-json", "-4", "route", "show", "table", "local", "type", "local")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise OSError("the addresses of this host are not known")
    return sorted({str(route["dst"]) for route in json.loads(output or b"[]")})
