"""Pause without memory: only files are kept, and a resume boots."""

import shutil
import signal

import pytest
from e2b import Sandbox, SandboxState
from e2b.exceptions import SandboxException

from .server import Runtime, wait_for

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def mode(runtime: Runtime, sandbox: Sandbox) -> str | None:
    """What its last pause kept, as the runtime tells."""
    detail = runtime.call("GET", f"/sandboxes/{sandbox.sandbox_id}").json
    found: str | None = detail.get("pauseMode")
    return found


def layers(runtime: Runtime) -> list[str]:
    """The layers on the disk."""
    folder = runtime.root / "isolation" / "snapshots"
    return sorted(path.name for path in folder.iterdir())


def test_files_stay_and_programs_do_not(runtime: Runtime) -> None:
    sandbox = Sandbox.create(envs={"COLOUR": "green"}, **runtime.sdk)
    sandbox.commands.run("sleep 1000", background=True, timeout=0)
    sandbox.files.write("kept", "yes")
    boot, before = sandbox.files.read(BOOT_ID), layers(runtime)
    assert mode(runtime, sandbox) is None
    assert sandbox.pause(keep_memory=False) is True
    assert sandbox.pause(keep_memory=False) is False
    assert not sandbox.is_running()
    assert sandbox.get_info().state is SandboxState.PAUSED
    assert mode(runtime, sandbox) == "filesystem"
    sandbox.connect(timeout=60)
    assert sandbox.commands.run("echo $COLOUR; cat kept").stdout == "green\nyes"
    assert sandbox.commands.run("pgrep sleep || true").stdout == ""
    if shutil.which("crun"):  # runc covers nothing in /proc
        assert sandbox.files.read(BOOT_ID) != boot
    assert sandbox.pause() is True
    assert mode(runtime, sandbox) == "full"
    assert sandbox.kill() is True
    wait_for(lambda: layers(runtime) == before)


def test_it_can_be_done_again_and_again(runtime: Runtime, sandbox: Sandbox) -> None:
    for number in range(3):
        sandbox.files.write(f"f{number}", str(number))
        sandbox.pause(keep_memory=False)
        sandbox.connect(timeout=60)
    assert sandbox.commands.run("cat f0 f1 f2").stdout == "012"


def test_a_deadline_can_do_it(runtime: Runtime) -> None:
    ending = {"action": "pause", "keep_memory": False}
    sandbox = Sandbox.create(lifecycle={"on_timeout": ending}, **runtime.sdk)  # type: ignore[typeddict-item]
    sandbox.files.write("kept", "yes")
    sandbox.set_timeout(0)
    wait_for(lambda: mode(runtime, sandbox) == "filesystem")
    sandbox.connect(timeout=60)
    assert sandbox.files.read("kept") == "yes"
    sandbox.kill()


def test_a_whole_pause_can_be_left_without_memory(
    runtime: Runtime, sandbox: Sandbox
) -> None:
    sandbox.commands.run("sleep 1000", background=True, timeout=0)
    sandbox.files.write("kept", "yes")
    sandbox.pause()
    path = f"/v2/sandboxes/{sandbox.sandbox_id}/connect"
    assert runtime.call("POST", path, {"timeout": 60, "memory": False}).status == 201
    assert sandbox.commands.run("cat kept; pgrep sleep || true").stdout == "yes"


def test_it_outlives_the_runtime(own_runtime: Runtime) -> None:
    sandbox = Sandbox.create(**own_runtime.sdk)
    sandbox.files.write("kept", "yes")
    sandbox.pause(keep_memory=False)
    gone = Sandbox.create(**own_runtime.sdk)
    gone.pause(keep_memory=False)
    own_runtime.restart(signal.SIGKILL)
    assert own_runtime.call("GET", "/kode/status").json["lost"] == []
    assert gone.kill() is True
    sandbox.connect(timeout=60)
    assert sandbox.files.read("kept") == "yes"
    sandbox.kill()
    wait_for(lambda: layers(own_runtime) == [])


def test_there_is_nothing_to_copy_of_one_without_a_box(
    runtime: Runtime, sandbox: Sandbox
) -> None:
    sandbox.pause(keep_memory=False)
    with pytest.raises(SandboxException, match="resume it first"):
        sandbox.create_snapshot()
