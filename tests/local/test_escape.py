"""Root inside a sandbox tries to get out, to its neighbours and at the host."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxes.local.isolation import PYTHON_ARGV

from .isolated import (
    ENV,
    ROOT,
    Isolated,
    Limits,
    Tracked,
    inside,
    python,
    run,
    start,
)

CANARY = "canary-8c1f4b"


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    secret = {"KODE_TEST_SECRET": CANARY}
    running = start(tmp_path_factory.mktemp("escape") / "root", secret)
    yield running
    running.end()


CALLS = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
numbers = {
    "x86_64": dict(mount=165, umount2=166, unshare=272, setns=308, pivot_root=155,
        bpf=321, keyctl=250, add_key=248, userfaultfd=323, io_uring_setup=425,
        perf_event_open=298, open_tree=428, move_mount=429, fsopen=430,
        open_by_handle_at=304, init_module=175, kexec_load=246, reboot=169,
        mount_setattr=442, sethostname=170, swapon=167, syslog=103, acct=163),
}[os.uname().machine]
for name, number in numbers.items():
    ctypes.set_errno(0)
    flags = 0x10000000 if name == "unshare" else 0
    result = libc.syscall(number, flags, 0, 0, 0, 0)
    code = errno.errorcode.get(ctypes.get_errno(), "none")
    print(name, result, code)
for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000):
    ctypes.set_errno(0)
    pid = libc.syscall(56,
                       flag | 17, 0, 0, 0, 0)
    if pid == 0:
        libc._exit(0)
    print("clone", pid, errno.errorcode.get(ctypes.get_errno(), "none"))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@inside
async def test_kernel_calls_are_refused(driver: Tracked) -> None:
    box = await driver.box()
    rows = [line.split() for line in (await python(box, CALLS)).splitlines()]
    assert len(rows) == 27
    open_doors = [row for row in rows if row[1:] != ["-1", "EPERM"]]
    assert open_doors == []


FAMILIES = """
import socket
for family in range(1, 46):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind, 0).close()
            print(family)
        except OSError:
            pass
"""


@inside
async def test_sockets_are_of_confined_families(driver: Tracked) -> None:
    box = await driver.box()
    made = {int(line) for line in (await python(box, FAMILIES)).split()}
    assert made <= {1, 2, 10, 16}  # unix, IPv4, IPv6, netlink


CAPABILITIES = """
for line in open("/proc/self/status"):
    if line.startswith("Cap") or line.startswith("Seccomp:"):
        print(line.split()[0], int(line.split()[1], 16))
"""
# The bits of oci.CAPABILITIES, written again on purpose.
GRANTED = sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31))


@inside
async def test_root_holds_the_listed_capabilities_only(driver: Tracked) -> None:
    box = await driver.box()
    pairs = (line.split() for line in (await python(box, CAPABILITIES)).splitlines())
    found = {name: int(value) for name, value in pairs}
    assert found["CapBnd:"] == GRANTED
    assert found["CapEff:"] & ~GRANTED == 0
    assert found["Seccomp:"] == 2


@inside
async def test_pid_1_is_out_of_reach(driver: Tracked) -> None:
    box = await driver.box()
    for line in (
        "cat /proc/1/environ",
        "head -c1 /proc/1/mem",
        "cat /proc/1/maps",
        "ls -l /proc/1/fd/",
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
    ):
        code, text = await run(box, line)
        assert "denied" in text, (line, text)
        assert code != 0, (line, text)
    trace = "import ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))"
    assert await python(box, trace) == "-1"
    take = "import ctypes; print(ctypes.CDLL(None).syscall(438, 3, 3, 0))"
    assert await python(box, take) == "-1"
    await run(box, "kill -9 1; kill -9 -1; kill -SEGV 1; kill -STOP 1")
    assert (await run(box, "echo alive"))[1] == "alive\n"


@inside
async def test_no_secret_of_the_starter_is_inside(driver: Tracked) -> None:
    assert os.environ["KODE_TEST_SECRET"] == CANARY
    box = await driver.box()
    pattern = f"{CANARY[:-1]}[{CANARY[-1]}]"  # not to find the search itself
    search = f"cat /proc/*/environ /proc/*/cmdline 2>/dev/null | grep -ac '{pattern}'"
    assert (await run(box, search))[1] == "0\n"


def test_no_secret_is_in_the_sandboxes_processes(isolated: Isolated) -> None:
    if os.geteuid():
        pytest.skip("reads other users' processes")
    isolated.run(hold)
    try:
        ours = {isolated.process.pid, isolated.launcher(), os.getpid()}
        holders = [pid for pid in users_of_canary() if pid not in ours]
        assert holders == []
        assert isolated.process.pid in users_of_canary()  # the search does find it
    finally:
        isolated.run(let_go)


async def hold(driver: Tracked) -> None:
    await driver.box("held", internet=True)
    driver.boxes.clear()


async def let_go(driver: Tracked) -> None:
    driver.boxes.append(await driver.driver.attach("held"))


def users_of_canary() -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if CANARY.encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


WRITES = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sysrq-trigger",
    "/sys/kernel/mm/ksm/run",
    "/sys/fs/cgroup/cgroup.procs",
    "/usr/bin/true",
    "/.kode/init.py",
    "/proc/self/uid_map",
]


@inside
async def test_kernel_settings_and_lower_files_cannot_be_written(
    driver: Tracked,
) -> None:
    box = await driver.box()
    for path in WRITES:
        code, text = await run(box, f"echo 1 > {path}")
        assert code != 0, (path, text)
    assert (await run(box, "chmod 777 /usr/bin/true; touch /usr/new"))[0] != 0


@inside
async def test_devices_cannot_be_made_or_opened(driver: Tracked) -> None:
    box = await driver.box()
    for line in (
        "mknod /tmp/disk b 254 0",
        "mknod /tmp/mem c 1 1",
        "mknod /dev/kmsg c 1 11",
        "cat /dev/mem",
        "cat /dev/vda",
        "cat /dev/kmsg",
    ):
        assert (await run(box, line))[0] != 0, line
    allowed = {"console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts"}
    allowed |= {"random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
    assert set((await run(box, "ls /dev"))[1].split()) <= allowed


@inside
async def test_nothing_of_the_host_but_usr_shows(driver: Tracked) -> None:
    box = await driver.box()
    outside = [str(Path.cwd()), str(Path.home()), "/etc/hostname.host", "/run/kode"]
    for path in outside:
        assert (await run(box, f"ls -d {path}/*"))[0] != 0 or path == "/root", path
    assert (await run(box, "ls -A /root /home"))[1].split()[1:] != []
    users = (await run(box, "cut -d: -f1 /etc/passwd"))[1].split()
    assert users[0] == "root"
    assert users[-1] == "user"
    assert (await run(box, "ls /etc/profile.d /etc/pip.conf /etc/npmrc"))[0] != 0
    mounts = (await run(box, "cat /proc/self/mounts"))[1]
    kinds = {line.split()[2] for line in mounts.splitlines()}
    assert "cgroup" not in kinds
    assert "cgroup2" not in kinds


@inside
async def test_interface_cannot_be_changed(driver: Tracked) -> None:
    box = await driver.box(internet=True)
    for line in (
        "ip addr add 10.203.0.77/16 dev eth0",
        "ip link set eth0 down",
        "ip link set eth0 address 02:00:00:00:00:01",
        "ip route add 192.0.2.0/24 dev eth0",
        "nft flush ruleset",
    ):
        assert (await run(box, line))[0] != 0, line


CONNECT = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.rsplit("|", 1)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.settimeout(1.0)
    try:
        sock.connect((host, int(port)))
        print("REACHED", target)
    except OSError:
        pass
    sock.close()
print("done")
"""


async def reach(driver: Tracked, targets: list[str]) -> str:
    """Which of the targets a networked sandbox gets a connection to."""
    box = await driver.box(internet=True)
    return (await run(box, (*PYTHON_ARGV, "-c", CONNECT, *targets)))[1]


def own_addresses() -> list[str]:
    """Every address that this machine answers on, of both kinds."""
    rows = Path("/proc/net/fib_trie").read_text().split("\n")
    found = {
        rows[at - 1].split()[-1]
        for at, row in enumerate(rows)
        if "/32 host LOCAL" in row
    }
    return sorted(found)


def test_host_is_unreachable_on_every_address(isolated: Isolated) -> None:
    hosts = own_addresses()
    assert "127.0.0.1" in hosts
    private = ["10.0.2.2", "10.203.0.1", "169.254.169.254", "192.168.0.1", "::1"]
    nat64 = ["64:ff9b::7f00:1", "fd00::2", "::ffff:127.0.0.1"]
    with socket.create_server(("", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        server.accept()[0].close()  # it does serve
        targets = [f"{host}|{port}" for host in (*hosts, *private, *nat64)]
        assert isolated.run(reach, targets) == "done\n"
        with pytest.raises(TimeoutError):
            server.accept()


LISTEN = """
import socket, sys
for port in (7000, 8080):
    server = socket.socket(); server.bind(("0.0.0.0", port)); server.listen()
    globals()[f"kept{port}"] = server
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0neighbour")
abstract.listen()
print("ready", flush=True)
import time; time.sleep(60)
"""


@inside
async def test_neighbour_is_unreachable(driver: Tracked) -> None:
    one, other = await asyncio.gather(
        driver.box("one", internet=True), driver.box("other", internet=True)
    )
    ours, theirs = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    fds = [null, theirs, null]
    argv = (*PYTHON_ARGV, "-c", LISTEN)
    await one.spawn(argv, identity=ROOT, env=ENV, cwd="/", fds=fds)
    os.close(theirs)
    os.close(null)
    assert await asyncio.to_thread(os.read, ours, 100) == b"ready\n"
    os.close(ours)
    address = (await run(one, "hostname -I"))[1].split()[0]
    assert address.startswith("10.203.")
    targets = [f"{address}|{port}" for port in (7000, 8080)]
    own = await run(one, (*PYTHON_ARGV, "-c", CONNECT, *targets))
    assert own[1].count("REACHED") == 2
    seen = await run(other, (*PYTHON_ARGV, "-c", CONNECT, *targets))
    assert seen[1] == "done\n"
    abstract = (
        "import socket; s = socket.socket(socket.AF_UNIX); "
        "print(s.connect_ex('\\0neighbour'))"
    )
    assert await python(one, abstract) == "0"
    assert await python(other, abstract) != "0"
    await run(one, "touch /tmp/mine /dev/shm/mine")
    assert (await run(other, "ls /tmp /dev/shm | grep mine"))[1] == ""
    assert "LISTEN" not in (await run(other, "ps aux"))[1]


def test_sandboxes_have_ids_of_their_own(isolated: Isolated) -> None:
    first, second = isolated.run(ids)
    assert first[0] != second[0]
    assert abs(first[0] - second[0]) >= 65536
    assert min(first[0], second[0]) >= 65536


async def ids(driver: Tracked) -> list[list[int]]:
    boxes = [await driver.box() for _ in range(2)]
    maps = [await run(box, "cat /proc/self/uid_map") for box in boxes]
    return [[int(word) for word in text.split()[1:]] for _, text in maps]


BOMB = "bomb() { bomb | bomb & }; bomb; sleep 1"


@inside
async def test_fork_bomb_stays_within_its_limit(driver: Tracked) -> None:
    bomb = await driver.box(limits=Limits(pids=100, cpus=1.0))
    neighbour = await driver.box()
    await run(bomb, f"({BOMB}) >/dev/null 2>&1 &")
    worst = 0.0
    for _ in range(20):
        begun = time.monotonic()
        assert (await run(neighbour, "echo here"))[1] == "here\n"
        worst = max(worst, time.monotonic() - begun)
        assert (await bomb.stats()).processes <= 100
    assert worst < 10
    async with asyncio.timeout(30):
        await bomb.kill()


@inside
async def test_memory_limit_ends_the_command_alone(driver: Tracked) -> None:
    box = await driver.box(limits=Limits(memory_mb=64))
    hungry = "x = bytearray(1 << 20)\nwhile True: x += bytes(8 << 20)"
    code, _ = await run(box, (*PYTHON_ARGV, "-c", hungry))
    assert code == -signal.SIGKILL
    code, text = await run(box, f"{' '.join(PYTHON_ARGV)} -c '{hungry}'; echo $?")
    assert text.strip().endswith("137"), (code, text)
    shm = "head -c 200M /dev/zero > /dev/shm/fill; rm /dev/shm/fill; echo alive"
    assert "alive" in (await run(box, shm))[1]


@inside
async def test_processor_limit_holds(driver: Tracked) -> None:
    box = await driver.box(limits=Limits(cpus=0.25))
    before, begun = (await box.stats()).cpu_used_s, time.monotonic()
    await run(box, "timeout 2 bash -c 'while :; do :; done'")
    spent = (await box.stats()).cpu_used_s - before
    assert 0 < spent < 0.45 * (time.monotonic() - begun)


@inside
async def test_descriptors_of_a_process_are_bounded(driver: Tracked) -> None:
    box = await driver.box()
    text = (await run(box, "ulimit -Hn"))[1]
    assert int(text) <= 65536
