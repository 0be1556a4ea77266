"""The runtime may end at any moment: its sandboxes are found again."""

import signal
import time

import pytest
from e2b import Sandbox, SandboxNotFoundException, SandboxState

from .server import Runtime, wait_for


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_new_runtime_finds_the_sandboxes(
    own_runtime: Runtime, sign: signal.Signals
) -> None:
    made = Sandbox.create(timeout=300, metadata={"m": "1"}, **own_runtime.sdk)
    made.files.write("kept", "yes")
    made.commands.run("nohup sleep 1000 > /dev/null 2>&1 &")
    paused = Sandbox.create(timeout=300, **own_runtime.sdk)
    paused.files.write("frozen", "yes")
    paused.pause()
    end = made.get_info().end_at
    own_runtime.restart(sign)
    info = made.get_info()
    assert (info.metadata, info.end_at) == ({"m": "1"}, end)
    assert made.files.read("kept") == "yes"
    assert made.commands.run("pgrep -c sleep").stdout == "1\n"
    assert paused.get_info().state is SandboxState.PAUSED
    paused.connect(timeout=60)
    assert paused.files.read("frozen") == "yes"
    assert made.kill() is True


def test_a_deadline_holds_across_a_restart(own_runtime: Runtime) -> None:
    made = Sandbox.create(timeout=2, **own_runtime.sdk)
    own_runtime.restart()
    wait_for(lambda: not made.is_running())
    with pytest.raises(SandboxNotFoundException):
        made.get_info()


def test_a_sandbox_overdue_at_the_start_is_ended(own_runtime: Runtime) -> None:
    made = Sandbox.create(timeout=1, **own_runtime.sdk)
    own_runtime.end(signal.SIGKILL)
    time.sleep(1.2)
    own_runtime.restart()
    wait_for(lambda: not made.is_running(), 5)


def test_a_lost_sandbox_is_reported(own_runtime: Runtime) -> None:
    record = own_runtime.root / "records" / "ilostlostlost.json"
    record.parent.mkdir(exist_ok=True)
    template = '{"sandbox_id": "ilostlostlost", "template": "base", "base_tree": "host"'
    record.write_text(template + ', "started_at": 1, "end_at": 2, "timeout_s": 1}')
    own_runtime.restart(signal.SIGTERM)
    assert own_runtime.call("GET", "/kode/status").json["lost"] == ["ilostlostlost"]
    assert own_runtime.call("GET", "/sandboxes/ilostlostlost").status == 404
    assert not record.exists()


def test_an_open_stream_does_not_hold_the_end(own_runtime: Runtime) -> None:
    made = Sandbox.create(**own_runtime.sdk)
    made.commands.run("sleep 100", background=True, timeout=0)
    started = time.monotonic()
    assert own_runtime.end(signal.SIGTERM) == 0
    assert time.monotonic() - started < 8
    own_runtime.restart()
    assert made.kill() is True
