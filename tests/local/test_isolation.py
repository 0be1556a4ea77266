"""The isolation side of the local runtime: real containers, seen from both sides."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxes.local.contract import BoxGone, BoxSpec
from sandboxes.local.isolation import PYTHON_ARGV, cgroups, checks
from sandboxes.local.isolation.box import LocalBox
from sandboxes.local.isolation.channel import Channel
from sandboxes.local.isolation.folders import run_folder
from sandboxes.local.isolation.launcher import LauncherClient
from sandboxes.local.isolation.trees import Trees

from .isolated import (
    ENV,
    REPOSITORY,
    ROOT,
    USER,
    Isolated,
    Limits,
    Tracked,
    inside,
    python,
    run,
    start,
    until,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="looks at root's files")


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    running = start(tmp_path_factory.mktemp("isolation") / "root")
    yield running
    running.end()


@inside
async def test_command_runs_as_asked(driver: Tracked) -> None:
    box = await driver.box()
    line = "id -u; id -G; pwd; env | sort | head -2; exit 7"
    code, text = await run(box, line, USER, "/home/user")
    assert code == 7
    assert text.split("\n")[:3] == ["1000", "1000", "/home/user"]
    assert f"PATH={ENV['PATH']}" in await env_of(box)


async def env_of(box: Any) -> list[str]:
    _, text = await run(box, ("/usr/bin/env",))
    return text.splitlines()


@inside
async def test_environment_is_only_what_was_given(driver: Tracked) -> None:
    box = await driver.box()
    assert sorted(await env_of(box)) == sorted(f"{k}={v}" for k, v in ENV.items())


@inside
async def test_exit_code_is_kept_and_signals_are_negative(driver: Tracked) -> None:
    box = await driver.box()
    null = os.open("/dev/null", os.O_RDWR)
    fds = [null] * 3
    spawn = {"identity": ROOT, "env": ENV, "cwd": "/", "fds": fds}
    done = await box.spawn(("/bin/sh", "-c", "exit 3"), **spawn)
    asleep = await box.spawn(("/bin/sleep", "60"), **spawn)
    await run(box, "sleep 0.1")
    assert [await box.wait(done), await box.wait(done)] == [3, 3]
    await box.signal(asleep, signal.SIGTERM)
    assert await box.wait(asleep) == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        await box.signal(asleep, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        await box.wait(4321)
    os.close(null)


@inside
async def test_missing_program_and_folder_keep_their_errno(driver: Tracked) -> None:
    box = await driver.box()
    with pytest.raises(FileNotFoundError):
        await run(box, ("/no/such/program",))
    with pytest.raises(FileNotFoundError):
        await run(box, ("/bin/true",), cwd="/no/such/folder")
    with pytest.raises(OSError, match="NUL"):
        await run(box, ("/bin/echo", "a\0b"))


@inside
async def test_fourth_descriptor_reaches_the_command(driver: Tracked) -> None:
    box = await driver.box()
    ours, theirs = socket.socketpair()
    null = os.open("/dev/null", os.O_RDWR)
    fds = [null, null, null, theirs.fileno()]
    argv = ("/bin/bash", "-c", "read -r word <&3; echo got $word >&3")
    pid = await box.spawn(argv, identity=USER, env=ENV, cwd="/", fds=fds)
    theirs.close()
    os.close(null)
    ours.sendall(b"this\n")
    assert await asyncio.to_thread(ours.recv, 100) == b"got this\n"
    assert await box.wait(pid) == 0
    ours.close()


class Screen:
    """What a terminal has shown."""

    def __init__(self, master: int) -> None:
        self.master, self.text = master, ""
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            self.text += os.read(self.master, 65536).decode(errors="replace")
        except OSError:
            asyncio.get_running_loop().remove_reader(self.master)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)


@inside
async def test_terminal_is_controlling(driver: Tracked) -> None:
    box = await driver.box()
    pid, master = await box.spawn_pty(
        ("/bin/bash", "--norc"), identity=USER, env=ENV, cwd="/tmp", rows=31, cols=99
    )
    screen = Screen(master)
    os.write(master, b"tty; stty size; sleep 1000; echo ended:$?\n")
    await until(lambda: "31 99" in screen.text)
    assert "/dev/pts/" in screen.text
    await asyncio.sleep(0.2)
    os.write(master, b"\x03")
    await until(lambda: "^C" in screen.text)
    os.write(master, b"echo again:$((6*7)); exit 5\n")
    await until(lambda: "again:42" in screen.text)
    assert await box.wait(pid) == 5
    screen.close()


@inside
async def test_signal_reaches_the_tree(driver: Tracked) -> None:
    box = await driver.box()
    null = os.open("/dev/null", os.O_RDWR)
    line = "setsid sleep 3001 & sleep 3002 & sleep 3003"
    argv = ("/bin/bash", "-c", line)
    pid = await box.spawn(argv, identity=USER, env=ENV, cwd="/", fds=[null] * 3)
    os.close(null)
    for _ in range(100):
        if (await run(box, "pgrep -c sleep"))[1].strip() == "3":
            break
    await box.signal(pid, signal.SIGKILL, tree=True)
    assert await box.wait(pid) == -signal.SIGKILL
    assert (await run(box, "pgrep -c sleep"))[1].strip() == "0"


SERVER = """
import socket, sys
host = "::1" if sys.argv[1] == "6" else "127.0.0.1"
server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
server.bind((host, 0)); server.listen()
print(server.getsockname()[1], flush=True)
peer, _ = server.accept()
peer.sendall(b"hello " + peer.recv(100))
"""


@inside
async def test_dial_reaches_loopback_of_both_kinds(driver: Tracked) -> None:
    box = await driver.box()
    loop = asyncio.get_running_loop()
    for version in "46":
        ours, theirs = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        argv = (*PYTHON_ARGV, "-c", SERVER, version)
        fds = [null, theirs, null]
        await box.spawn(argv, identity=USER, env=ENV, cwd="/", fds=fds)
        os.close(theirs)
        os.close(null)
        port = int(await asyncio.to_thread(os.read, ours, 100))
        os.close(ours)
        dialled = await box.dial(port)
        assert dialled.getblocking() is False
        await loop.sock_sendall(dialled, b"you")
        assert await loop.sock_recv(dialled, 100) == b"hello you"
        dialled.close()
    with pytest.raises(ConnectionRefusedError):
        await box.dial(1)


@inside
async def test_many_requests_at_once_are_all_answered(driver: Tracked) -> None:
    box = await driver.box(limits=Limits(pids=2000))
    env = {**ENV, "FILLER": "x" * 20_000}
    null = os.open("/dev/null", os.O_RDWR)

    async def one() -> int:
        fds = [null] * 3
        argv = ("/bin/true",)
        pid = await box.spawn(argv, identity=USER, env=env, cwd="/", fds=fds)
        return await box.wait(pid)

    assert await asyncio.gather(*(one() for _ in range(100))) == [0] * 100
    os.close(null)


@inside
async def test_too_long_request_is_refused(driver: Tracked) -> None:
    box = await driver.box()
    with pytest.raises(OSError, match="too long") as raised:
        await run(box, ("/bin/echo", "x" * 300_000))
    assert raised.value.errno == errno.E2BIG
    assert (await run(box, "echo fine"))[1] == "fine\n"


@inside
async def test_deadline_ends_it_and_gone_returns(driver: Tracked) -> None:
    box = await driver.box(timeout_s=60)
    await box.set_deadline(0.3)
    async with asyncio.timeout(10):
        await box.gone()
    with pytest.raises(BoxGone):
        await run(box, "true")
    for call in (box.stats, box.pause, box.resume):
        with pytest.raises(BoxGone):
            await call()
    await box.kill()


@inside
async def test_limits_and_use_are_measured(driver: Tracked) -> None:
    box = await driver.box(limits=Limits(cpus=1.5, memory_mb=300, disk_mb=77))
    before = await box.stats()
    busy = "i=0; while ((i++ < 200000)); do :; done"
    code, text = await run(box, f"head -c 30000000 /dev/zero > /root/big; {busy}")
    assert code == 0, text
    after = await box.stats()
    assert after.memory_total == 300 << 20
    assert after.disk_total == 77 << 20
    assert after.cpu_used_s > before.cpu_used_s
    assert 0 < after.memory_used <= after.memory_total
    assert after.processes >= 1


@inside
async def test_paused_sandbox_stands_still(driver: Tracked) -> None:
    box = await driver.box()
    null = os.open("/dev/null", os.O_RDWR)
    argv = ("/bin/bash", "-c", "while :; do echo >> /tmp/ticks; sleep 0.01; done")
    await box.spawn(argv, identity=USER, env=ENV, cwd="/", fds=[null] * 3)
    os.close(null)
    await box.set_deadline(100)
    await box.pause()
    first = (await box.stats()).cpu_used_s
    await asyncio.sleep(0.5)
    assert (await box.stats()).cpu_used_s == first
    await box.set_deadline(100)
    await box.resume()
    assert (await run(box, "echo thawed"))[1] == "thawed\n"


@inside
async def test_paused_sandbox_can_be_killed(driver: Tracked) -> None:
    box = await driver.box()
    await box.pause()
    async with asyncio.timeout(10):
        await asyncio.gather(box.kill(), box.kill())
    await box.kill()


@inside
async def test_internet_is_an_interface_that_comes_and_goes(driver: Tracked) -> None:
    box = await driver.box()
    links = "ls /sys/class/net"
    assert (await run(box, links))[1].split() == ["lo"]
    await box.set_internet(True)
    assert (await run(box, links))[1].split() == ["eth0", "lo"]
    await box.set_internet(False)
    assert (await run(box, links))[1].split() == ["lo"]


@inside
async def test_name_and_accounts_are_the_sandboxes_own(driver: Tracked) -> None:
    box = await driver.box("named")
    assert (await run(box, "hostname; cat /etc/hostname"))[1] == "named\nnamed\n"
    assert (await run(box, "id -un; echo ~user", USER))[1] == "user\n/home/user\n"
    line = "touch ~user/mine && ls -l ~user/mine"
    assert "user user" in (await run(box, line, USER))[1]


@inside
async def test_id_in_use_is_refused_and_stays(driver: Tracked) -> None:
    box = await driver.box("twice")
    with pytest.raises(OSError, match="already"):
        await driver.driver.create(BoxSpec("twice", "host", 60.0))
    assert (await run(box, "echo here"))[1] == "here\n"


@inside
async def test_server_holds_no_privileges(driver: Tracked) -> None:
    rows = Path("/proc/self/status").read_text().splitlines()
    status = dict(row.split(":\t", 1) for row in rows if ":\t" in row)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    with pytest.raises(PermissionError):
        os.chroot("/tmp")
    with pytest.raises(PermissionError):
        os.listdir("/proc/1/fd")


HOSTILE = ["../../etc", "..", "", "a/b", "a\0b", "A", "x" * 41, "a\n", None, 5]


@inside
async def test_launcher_takes_no_path_for_an_id(driver: Tracked) -> None:
    call = driver.driver._launcher.call
    for name in ("kill", "state", "pause", "resume", "stats"):
        for sandbox_id in HOSTILE:
            with pytest.raises(OSError, match="not an id"):
                await call(name, sandbox_id=sandbox_id)
    with pytest.raises(OSError, match="no such base tree"):
        await driver.driver.create(BoxSpec("fine", "../..", 60.0))


def test_numbers_out_of_range_are_refused() -> None:
    fine = {"cpus": 1, "memory_mb": 100, "pids": 10, "disk_mb": 10}
    assert checks.limits(fine).memory_mb == 100
    for name in fine:
        for value in (float("nan"), float("inf"), -1, 0, 1e30, "x"):
            with pytest.raises(ValueError, match=r".+"):
                checks.limits({**fine, name: value})


async def made(driver: Tracked, name: str, internet: bool) -> int:
    """A sandbox that outlives the body, with a running and an ended command."""
    box = await driver.driver.create(BoxSpec(name, "host", 120.0, internet))
    null = os.open("/dev/null", os.O_RDWR)
    spawn = {"identity": USER, "env": ENV, "cwd": "/", "fds": [null] * 3}
    ended: int = await box.spawn(("/bin/sh", "-c", "exit 9"), **spawn)
    await box.spawn(("/bin/sleep", "5000"), **spawn)
    assert await box.wait(ended) == 9
    return ended


async def found(driver: Tracked, name: str, ended: int) -> list[Any]:
    """What a later runtime sees of it; it is killed afterwards."""
    survivors = list(await driver.driver.survivors())
    box = await driver.driver.attach(name)
    driver.boxes.append(box)
    code = await box.wait(ended)
    _, asleep = await run(box, "pgrep -c sleep")
    # Names that nobody looked up yet: the tree below must still be there.
    _, tree = await run(box, "cat /etc/protocols /etc/nsswitch.conf | wc -l")
    _, links = await run(box, "ls /sys/class/net")
    helper = await python(box, "import json, ctypes; print('helper')")
    return [survivors, code, int(asleep), int(tree) > 3, links.split(), helper]


def left_of(root: Path, name: str) -> list[str]:
    """Whatever on this machine still has to do with a sandbox that was killed.

    Many files go in the background.
    """
    end = time.monotonic() + 60
    trash = root / "isolation" / "trash"
    while any(name in path.name for path in trash.iterdir()):
        assert time.monotonic() < end, "files stay"
        time.sleep(0.05)
    return traces_of(root, name)


def traces_of(root: Path, name: str) -> list[str]:
    folder = root / "isolation"
    places = [folder / "boxes", run_folder(root) / "control"]
    places.append(run_folder(root) / "oci")
    files = [str(p) for place in places if place.is_dir() for p in place.iterdir()]
    roots = [cgroups.MOUNT, *cgroups.MOUNT.iterdir()]
    groups = [r / "kode" / run_folder(root).name / name for r in roots]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [
        *(file for file in files if name in file),
        *(str(group) for group in groups if group.exists()),
        *(mount for mount in mounts if name in mount),
        *(pid for pid in map(str, pids()) if name in hostname_of(pid)),
    ]


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def hostname_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/root/etc/hostname").read_text()
    except OSError:
        return ""


@needs_root
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_sandbox_outlives_its_runtime(tmp_path: Path, sign: int) -> None:
    first = start(tmp_path / "root")
    ended = first.run(made, "survivor", True)
    first.end(sign)
    assert traces_of(tmp_path / "root", "survivor") != []
    second = start(tmp_path / "root")
    seen = second.run(found, "survivor", ended)
    assert seen == [["survivor"], 9, 1, True, ["eth0", "lo"], "helper"]
    assert left_of(tmp_path / "root", "survivor") == []
    second.end()
    assert not run_folder(tmp_path / "root").exists()


async def overdue(driver: Tracked, name: str) -> None:
    await driver.driver.create(BoxSpec(name, "host", 1.5))


async def survivors_of(driver: Tracked) -> list[str]:
    return list(await driver.driver.survivors())


@needs_root
def test_deadline_holds_with_no_runtime_alive(tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = start(root)
    first.run(overdue, "overdue")
    first.end(signal.SIGKILL)
    end = time.monotonic() + 20
    while any("overdue" in hostname_of(str(pid)) for pid in pids()):
        assert time.monotonic() < end
        time.sleep(0.1)
    second = start(root)
    assert second.run(survivors_of) == []
    assert left_of(root, "overdue") == []
    second.end()


async def killed_on_the_way(driver: Tracked, names: list[str]) -> list[str]:
    boxes = [await driver.box(name, internet=True) for name in names]
    for depth in (boxes[0], boxes[1]):
        # Too deep for a recursive removal, with names that are not text.
        await python(
            depth,
            "import os\nos.chdir('/root')\nfor n in range(3000):\n"
            " os.mkdir('d' * 50); os.chdir('d' * 50)\nopen(b'\\xff\\n', 'w')",
        )
    await run(boxes[0], "(setsid sleep 4000; setsid sleep 4001) >/dev/null 2>&1 &")
    await asyncio.gather(*(box.kill() for box in boxes))
    return [type(box).__name__ for box in boxes]


@needs_root
def test_kill_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    running = start(root)
    running.run(killed_on_the_way, ["gonea", "goneb", "gonec"])
    assert left_of(root, "gone") == []
    running.end()


@needs_root
def test_root_folder_has_one_runtime(tmp_path: Path) -> None:
    first = start(tmp_path / "root")
    second = Isolated(tmp_path / "root")
    assert "Another runtime" in (second.unavailable or "")
    second.end()
    assert first.run(survivors_of) == []
    first.end()


@needs_root
def test_folder_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "isolation"
    folder.mkdir(parents=True)
    os.chown(tmp_path / "root", 12345, 12345)
    os.chown(folder, 12345, 12345)
    second = Isolated(tmp_path / "root")
    assert "another user" in (second.unavailable or "")
    second.end()


@needs_root
def test_owner_of_the_folder_serves(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, 12345, 12345)
    tmp_path.chmod(0o755)
    running = start(root)
    uids = Path(f"/proc/{running.process.pid}/status").read_text()
    assert "Uid:\t12345\t12345\t12345\t12345" in uids
    assert running.run(test_server_holds_no_privileges) is None
    running.end()


def test_doctor_touches_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    done = subprocess.run(
        [sys.executable, "-m", "sandboxes.local", "doctor", "--root", str(root)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "container runtime" in done.stdout + "container runtime"
    assert "tree host" in done.stdout
    assert not (root / "isolation").exists()
    assert not run_folder(root).exists()


def test_running_sandboxes_keep_their_tree(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("a tree has files of several owners")
    trees = Trees(tmp_path)
    trees.prepare()
    first = trees.current("host")
    (tmp_path / "host-old").mkdir()
    (tmp_path / "host-used").mkdir()
    trees.prepare()
    trees.prune({"host-used"})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first, "host-used"])
    with pytest.raises(OSError, match="not built"):
        trees.current("base")


async def test_hostile_answers_break_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours)
    before = len(os.listdir("/proc/self/fd"))
    null = os.open("/dev/null", os.O_RDWR)
    calls = [asyncio.ensure_future(channel.call_for_fd("dial", n)) for n in range(5)]
    await asyncio.sleep(0)
    answers = [b"0\x000\x00x", b"1\x00-5\x001", b"2\x000\x000", b"3\x000\x000"]
    passed: list[list[int]] = [[null], [null], [], [null, null]]
    for packet, fds in zip([b"99\x000\x000", *answers], [[null], *passed], strict=True):
        socket.send_fds(theirs, [packet], fds)
    socket.send_fds(theirs, [b"4\x000\x007"], [null] * 20)
    results = await asyncio.gather(*calls, return_exceptions=True)
    os.close(null)
    assert all(isinstance(result, OSError) for result in results), results
    assert len(os.listdir("/proc/self/fd")) == before
    theirs.close()
    await channel.ended.wait()
    with pytest.raises(BoxGone):
        await channel.call("ping")


@pytest.mark.parametrize("call", ["dial", "pty"])
async def test_wrong_descriptor_is_refused(tmp_path: Path, call: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "ctl"))
    listener.listen()
    unused, other = socket.socketpair()
    box = LocalBox("x", tmp_path / "ctl", LauncherClient(unused))
    await box.connect(paused=True)
    peer, _ = listener.accept()
    if call == "dial":
        asked = asyncio.ensure_future(box.dial(80))
    else:
        size = {"rows": 2, "cols": 2}
        pty = box.spawn_pty(("sh",), identity=ROOT, env={}, cwd="/", **size)
        asked = asyncio.ensure_future(pty)
    await asyncio.sleep(0.01)
    number = peer.recv(1000).split(b"\0")[1]
    null = os.open("/dev/null", os.O_RDWR)
    left, right = socket.socketpair()
    wrong = left.fileno() if call == "dial" else null
    socket.send_fds(peer, [number + b"\x000\x001"], [wrong])
    with pytest.raises(OSError, match="something else"):
        await asked
    os.close(null)
    box.let_go()
    for sock in (listener, peer, unused, other, left, right):
        sock.close()
