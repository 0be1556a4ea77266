"""The isolation side of the local runtime: real containers, seen from both sides."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxes.local.contract import BoxGone, BoxSpec
from sandboxes.local.isolation import PYTHON_ARGV

from .isolated import (
    ENV,
    ROOT,
    USER,
    Isolated,
    Limits,
    Tracked,
    inside,
    run,
    start,
    until,
)


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


@inside
async def test_eight_descriptors_are_exactly_eight(driver: Tracked) -> None:
    box = await driver.box()
    ours, theirs = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    line = "ls /proc/self/fd > /tmp/seen; ls -l /proc/self/fd/7 >&7"
    fds = [null] * 7 + [theirs]
    argv = ("/bin/bash", "-c", line)
    pid = await box.spawn(argv, identity=ROOT, env=ENV, cwd="/", fds=fds)
    os.close(theirs)
    os.close(null)
    assert await box.wait(pid) == 0
    os.close(ours)
    # `ls` itself opens one more, to read the folder.
    seen = (await run(box, "cat /tmp/seen"))[1].split()
    assert sorted(map(int, seen)) == list(range(9))


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
