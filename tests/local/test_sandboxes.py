"""The life of a sandbox, driven by the unmodified SDK."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from e2b import (
    Sandbox,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
)
from e2b.exceptions import (
    AuthenticationException,
    RateLimitException,
    SandboxException,
)

from .server import Runtime, start_runtime, wait_for


def pages(runtime: Runtime, **options: object) -> list[str]:
    """Ids of all sandboxes on all pages of a list."""
    paginator = Sandbox.list(**options, **runtime.sdk)
    found = []
    while paginator.has_next:
        found += [info.sandbox_id for info in paginator.next_items()]
    return found


def test_create_run_kill(runtime: Runtime) -> None:
    sandbox = Sandbox.create(**runtime.sdk)
    assert sandbox.commands.run("echo $((6*7))").stdout == "42\n"
    assert sandbox.is_running()
    assert sandbox.kill() is True
    assert sandbox.is_running() is False
    assert Sandbox.kill(sandbox.sandbox_id, **runtime.sdk) is False


def test_info_tells_what_was_asked_for(runtime: Runtime) -> None:
    with Sandbox.create(timeout=77, metadata={"a": "b c"}, **runtime.sdk) as sandbox:
        info = sandbox.get_info()
        sandbox.kill()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.metadata == {"a": "b c"}
    assert info.state is SandboxState.RUNNING
    assert abs((info.end_at - info.started_at).total_seconds() - 77) < 1
    assert info.cpu_count >= 1
    assert info.lifecycle == {"on_timeout": "kill", "auto_resume": False}


def test_environment_reaches_commands_and_can_be_overridden(runtime: Runtime) -> None:
    sandbox = Sandbox.create(envs={"FOO": "one", "BAR": "two"}, **runtime.sdk)
    run = sandbox.commands.run("echo $FOO $BAR $E2B_SANDBOX", envs={"BAR": "three"})
    sandbox.kill()
    assert run.stdout == "one three true\n"


def test_unknown_template_is_refused(runtime: Runtime) -> None:
    with pytest.raises(SandboxException, match="'nosuch' not found"):
        Sandbox.create("nosuch", **runtime.sdk)


@pytest.mark.parametrize(
    ("timeout", "message"),
    [(0, "must be greater than 0"), (25 * 3600, "cannot be greater than 24 hours")],
)
def test_impossible_timeout_is_refused(
    runtime: Runtime, timeout: int, message: str
) -> None:
    with pytest.raises(SandboxException, match=message):
        Sandbox.create(timeout=timeout, **runtime.sdk)


def test_wrong_key_is_refused(runtime: Runtime) -> None:
    options = runtime.sdk | {"api_key": "e2b_" + "0" * 40}
    with pytest.raises(AuthenticationException):
        Sandbox.create(**options)


def test_same_idempotency_key_gives_the_same_sandbox(runtime: Runtime) -> None:
    first = Sandbox.create(idempotency_key="one-key", **runtime.sdk)
    second = Sandbox.create(idempotency_key="one-key", **runtime.sdk)
    other = Sandbox.create(idempotency_key="other-key", **runtime.sdk)
    assert first.sandbox_id == second.sandbox_id != other.sandbox_id
    first.kill()
    other.kill()


def test_list_filters_orders_and_pages(runtime: Runtime) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    mark = {"test": "list & filter", "n": "x=1"}
    made = [Sandbox.create(metadata=mark, **runtime.sdk) for _ in range(3)]
    ids = [sandbox.sandbox_id for sandbox in made]
    made[1].pause()
    by_mark = SandboxQuery(metadata=mark)
    assert pages(runtime, query=by_mark, limit=2) == ids[::-1]
    assert pages(runtime, query=by_mark, order="asc") == ids
    paused = SandboxQuery(metadata=mark, state=[SandboxState.PAUSED])
    assert pages(runtime, query=paused) == [ids[1]]
    assert pages(runtime, query=SandboxQuery(metadata={"test": "none"})) == []
    assert set(ids) <= set(pages(runtime, query=SandboxQuery(started_after=before)))
    for sandbox in made:
        sandbox.kill()


def test_set_timeout_shortens_until_the_end(runtime: Runtime) -> None:
    sandbox = Sandbox.create(timeout=300, **runtime.sdk)
    sandbox.set_timeout(1)
    wait_for(lambda: not sandbox.is_running())
    with pytest.raises(SandboxNotFoundException):
        sandbox.set_timeout(10)
    with pytest.raises(SandboxNotRunningException):
        sandbox.commands.run("true")


def test_connect_only_ever_extends(runtime: Runtime, sandbox: Sandbox) -> None:
    end = sandbox.get_info().end_at
    again = Sandbox.connect(sandbox.sandbox_id, timeout=5, **runtime.sdk)
    assert again.get_info().end_at == end
    again = Sandbox.connect(sandbox.sandbox_id, timeout=3000, **runtime.sdk)
    assert again.get_info().end_at > end + timedelta(seconds=2000)
    assert again.commands.run("echo here").stdout == "here\n"


def test_what_is_not_there_is_not_found(runtime: Runtime) -> None:
    with pytest.raises(SandboxNotFoundException):
        Sandbox.connect("inosuchsandbox", **runtime.sdk)
    with pytest.raises(SandboxNotFoundException):
        Sandbox.get_info("inosuchsandbox", **runtime.sdk)
    with pytest.raises(SandboxNotFoundException):
        Sandbox.pause("inosuchsandbox", **runtime.sdk)


def test_paused_sandbox_keeps_files_and_processes(
    runtime: Runtime, sandbox: Sandbox
) -> None:
    sandbox.files.write("kept", "yes")
    counting = "while :; do date +%s.%N >> ticks; sleep 0.05; done"
    pid = sandbox.commands.run(counting, background=True, timeout=0).pid
    wait_for(lambda: sandbox.files.exists("ticks"))
    assert sandbox.pause()
    assert sandbox.get_info().state is SandboxState.PAUSED
    assert sandbox.pause() is False
    assert sandbox.is_running() is False
    stopped = time.time()
    time.sleep(1.0)
    again = Sandbox.connect(sandbox.sandbox_id, timeout=60, **runtime.sdk)
    resumed = time.time()
    assert again.files.read("kept") == "yes"
    assert pid in [process.pid for process in again.commands.list()]
    ticks = [float(line) for line in again.files.read("ticks").split()]
    assert [tick for tick in ticks if stopped + 0.2 < tick < resumed - 0.2] == []
    wait_for(lambda: again.files.read("ticks").count("\n") > len(ticks))


def test_deadline_pauses_where_asked(runtime: Runtime) -> None:
    lifecycle = {"on_timeout": "pause"}
    sandbox = Sandbox.create(timeout=1, lifecycle=lifecycle, **runtime.sdk)
    wait_for(lambda: sandbox.get_info().state is SandboxState.PAUSED)
    again = Sandbox.connect(sandbox.sandbox_id, timeout=60, **runtime.sdk)
    assert again.commands.run("echo back").stdout == "back\n"
    again.kill()


def test_metrics_honour_the_range(sandbox: Sandbox) -> None:
    born = sandbox.get_info().started_at
    assert sandbox.get_metrics(end=born - timedelta(seconds=30)) == []
    found = wait_for(sandbox.get_metrics)
    assert found[0].mem_total > found[0].mem_used > 0
    assert found[0].disk_total > 0
    assert found[0].cpu_count >= 1


def test_metrics_see_work(sandbox: Sandbox) -> None:
    wait_for(sandbox.get_metrics)
    sandbox.commands.run("timeout 2 sh -c 'while :; do :; done' || true")
    wait_for(lambda: max(m.cpu_used_pct for m in sandbox.get_metrics()) > 5)


def test_too_many_sandboxes_are_refused_at_once(tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    runtime = start_runtime(tmp_path_factory.mktemp("small"), "--max-running", "1")
    try:
        Sandbox.create(**runtime.sdk)
        started = time.monotonic()
        with pytest.raises(RateLimitException, match=r"maximum number .* \(1\)"):
            Sandbox.create(**runtime.sdk)
        assert time.monotonic() - started < 1  # the client does not try again
    finally:
        runtime.stop()


def test_without_internet_nothing_is_reached(runtime: Runtime) -> None:
    sandbox = Sandbox.create(allow_internet_access=False, **runtime.sdk)
    try:
        links = sandbox.commands.run("cat /proc/net/dev | tail -n +3 | cut -d: -f1")
        assert links.stdout.split() == ["lo"]
        assert sandbox.get_info().allow_internet_access is False
    finally:
        sandbox.kill()


def test_finer_network_rules_are_refused(runtime: Runtime, sandbox: Sandbox) -> None:
    with pytest.raises(SandboxException, match="not supported by the local runtime"):
        sandbox.update_network({"allow_out": ["1.1.1.1/32"]})
    sandbox.update_network({"deny_out": ["0.0.0.0/0"]})
    assert sandbox.get_info().network == {"deny_out": ["0.0.0.0/0"]}


def test_a_gateway_that_is_not_there_leaves_no_sandbox(runtime: Runtime) -> None:
    metadata = {"gateway": "none"}
    with pytest.raises(SandboxException, match="Failed to start MCP gateway"):
        Sandbox.create("base", mcp={"x": {}}, metadata=metadata, **runtime.sdk)
    assert pages(runtime, query=SandboxQuery(metadata=metadata)) == []
