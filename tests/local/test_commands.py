"""Commands inside a sandbox, driven by the unmodified SDK."""

import os
import resource
import time

import pytest
from e2b import CommandExitException, Sandbox
from e2b.exceptions import (
    AuthenticationException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    SandboxNotRunningException,
    TimeoutException,
)

from .server import Runtime, wait_for


def test_output_and_exit_code(shared: Sandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        shared.commands.run("echo out; echo err >&2; exit 3")
    assert caught.value.exit_code == 3
    assert caught.value.stdout == "out\n"
    assert caught.value.stderr == "err\n"
    assert caught.value.error == "exit status 3"


def test_default_user_home_and_login_shell(shared: Sandbox) -> None:
    run = shared.commands.run("id -un; pwd; echo $HOME $USER; shopt -q login_shell")
    assert run.stdout == "user\n/home/user\n/home/user user\n"


def test_other_users(shared: Sandbox) -> None:
    assert shared.commands.run("id -u; echo $HOME", user="root").stdout == "0\n/root\n"
    with pytest.raises(AuthenticationException, match="invalid username"):
        shared.commands.run("true", user="nobodyknows")


def test_a_user_made_just_now_is_known(sandbox: Sandbox) -> None:
    sandbox.commands.run(
        "echo eve:x:4242:4242::/tmp:/bin/sh >> /etc/passwd", user="root"
    )
    assert sandbox.commands.run("id -u; pwd", user="eve").stdout == "4242\n/tmp\n"


def test_working_directory(shared: Sandbox) -> None:
    assert shared.commands.run("pwd", cwd="/usr/bin").stdout == "/usr/bin\n"
    assert shared.commands.run("mkdir -p sub; cd sub; pwd").stdout == "/home/user/sub\n"
    assert shared.commands.run("pwd", cwd="sub").stdout == "/home/user/sub\n"
    assert shared.commands.run("pwd", cwd="~/sub").stdout == "/home/user/sub\n"
    with pytest.raises(InvalidArgumentException, match="cwd '/nope' does not exist"):
        shared.commands.run("pwd", cwd="/nope")


def test_output_arrives_while_the_command_runs(shared: Sandbox) -> None:
    times: list[float] = []
    shared.commands.run(
        "echo a; sleep 0.6; echo b", on_stdout=lambda _: times.append(time.monotonic())
    )
    assert len(times) == 2
    assert times[1] - times[0] > 0.4


def test_bytes_are_kept_in_order_and_whole(shared: Sandbox) -> None:
    run = shared.commands.run("seq 1 200000; echo ž-日本-🎉")
    assert run.stdout == "".join(f"{n}\n" for n in range(1, 200001)) + "ž-日本-🎉\n"


def test_background_command_is_listed_and_killed(shared: Sandbox) -> None:
    handle = shared.commands.run("sleep 1000", background=True, timeout=0)
    found = {process.pid: process for process in shared.commands.list()}
    assert found[handle.pid].cmd == "/bin/bash"
    assert found[handle.pid].args == ["-l", "-c", "sleep 1000"]
    assert handle.kill() is True
    with pytest.raises(CommandExitException) as caught:
        handle.wait()
    assert (caught.value.exit_code, caught.value.error) == (-1, "signal: killed")
    assert shared.commands.kill(handle.pid) is False


def test_what_a_command_leaves_behind_does_not_hold_it(shared: Sandbox) -> None:
    started = time.monotonic()
    run = shared.commands.run("(sleep 30; echo late) & echo now")
    assert run.stdout == "now\n"
    assert time.monotonic() - started < 5
    assert shared.commands.run("pgrep -f 'sleep [3]0'").exit_code == 0
    shared.commands.run("pkill -f 'sleep [3]0'")


def test_stdin(shared: Sandbox) -> None:
    handle = shared.commands.run("tr a-z A-Z", background=True, stdin=True)
    shared.commands.send_stdin(handle.pid, "hello ")
    handle.send_stdin(b"world\n")
    handle.close_stdin()
    assert handle.wait().stdout == "HELLO WORLD\n"


def test_stdin_is_closed_by_default(shared: Sandbox) -> None:
    assert shared.commands.run("cat; echo end").stdout == "end\n"
    handle = shared.commands.run("sleep 1", background=True)
    with pytest.raises(SandboxException, match="stdin not enabled or closed"):
        handle.send_stdin("x")
    handle.kill()


def test_large_stdin_waits_for_its_reader(shared: Sandbox) -> None:
    handle = shared.commands.run("sleep 0.3; wc -c", background=True, stdin=True)
    for _ in range(4):
        handle.send_stdin("x" * 500_000)
    handle.close_stdin()
    assert handle.wait().stdout.strip() == "2000000"


def test_connect_joins_a_running_command(shared: Sandbox) -> None:
    first = shared.commands.run("read x; echo got $x", background=True, stdin=True)
    first.disconnect()
    second = shared.commands.connect(first.pid)
    shared.commands.send_stdin(first.pid, "it\n")
    assert second.wait().stdout == "got it\n"


def test_connect_late_still_tells_the_exit(shared: Sandbox) -> None:
    handle = shared.commands.run("sleep 0.2; exit 7", background=True)
    handle.disconnect()
    wait_for(lambda: handle.pid not in [p.pid for p in shared.commands.list()])
    with pytest.raises(CommandExitException) as caught:
        shared.commands.connect(handle.pid).wait()
    assert caught.value.exit_code == 7
    with pytest.raises(NotFoundException, match="process with pid 999999 not found"):
        shared.commands.connect(999999)


def test_timeout_kills_the_command_and_its_children(shared: Sandbox) -> None:
    with pytest.raises(TimeoutException):
        shared.commands.run("sleep 777 & sleep 777; true", timeout=0.5)
    gone = "! pgrep -f 'sleep [7]77'"
    wait_for(lambda: shared.commands.run(gone + " || echo there").stdout == "")


def test_missing_program_is_an_exit_code(shared: Sandbox) -> None:
    with pytest.raises(CommandExitException, match="nosuchprogram") as caught:
        shared.commands.run("nosuchprogram")
    assert caught.value.exit_code == 127


def test_kill_of_the_sandbox_ends_the_stream(runtime: Runtime) -> None:
    sandbox = Sandbox.create(**runtime.sdk)
    handle = sandbox.commands.run("sleep 1000", background=True, timeout=0)
    sandbox.kill()
    with pytest.raises(SandboxNotRunningException):
        handle.wait()


def memory_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        row = next(line for line in status if line.startswith("VmRSS"))
    return int(row.split()[1])


def test_client_that_stops_reading_costs_little(
    runtime: Runtime, sandbox: Sandbox
) -> None:
    sandbox.commands.run("true")
    before = memory_kb(runtime.pid)
    big = "head -c 200000000 /dev/zero | tr '\\0' a; echo written > done"
    handle = sandbox.commands.run(big, background=True, timeout=0)
    time.sleep(1.5)  # in which an unbounded runtime would have read it all
    assert memory_kb(runtime.pid) - before < 8_000
    assert not sandbox.files.exists("done")
    handle.kill()


def test_command_nobody_follows_goes_on(sandbox: Sandbox) -> None:
    writing = "head -c 3000000 /dev/zero; echo written > done; sleep 60"
    handle = sandbox.commands.run(writing, background=True, timeout=0)
    handle.disconnect()
    wait_for(lambda: sandbox.files.exists("done"))


def test_many_commands_at_once(shared: Sandbox) -> None:
    handles = [
        shared.commands.run(f"sleep 0.5; echo {n}", background=True) for n in range(24)
    ]
    assert [h.wait().stdout for h in handles] == [f"{n}\n" for n in range(24)]


def test_no_descriptors_are_left_open(runtime: Runtime, shared: Sandbox) -> None:
    def open_files() -> int:
        return len(os.listdir(f"/proc/{runtime.pid}/fd"))

    shared.commands.run("true")
    before = open_files()
    for _ in range(10):
        shared.commands.run("echo x")
    wait_for(lambda: open_files() <= before + 1)
    assert before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
