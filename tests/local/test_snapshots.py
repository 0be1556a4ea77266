"""Snapshots and forks: the files of a sandbox, for others to start from."""

import signal
from pathlib import Path

import pytest
from e2b import Sandbox, SandboxNotFoundException, Template
from e2b.exceptions import SandboxException

from .server import Runtime, start_runtime, wait_for

MAKE_KINDS = """
set -e
mkdir -p ~/kinds/deep/er && cd ~/kinds
echo one > file && ln file twin && ln -s file link && mkfifo pipe
truncate -s 50M hole && printf end >> hole
printf '#!/bin/sh\\necho ran' > program && chmod 750 program
touch -d '2001-02-03 04:05:06 UTC' file
rm /home/user/.bashrc && mkdir /home/user/.bashrc
"""
MAKE_OF_ROOT = "echo kept > /opt/of-root; chmod 600 /opt/of-root; rm /etc/mtab"
TELL_KINDS = """
cd ~/kinds
stat -c '%n %F %A %U %h %Y' file pipe program link deep/er | sed 's/ [0-9]*$//'
stat -c '%Y' file; cat twin; ./program; stat -c '%s' hole; tail -c 3 hole; echo
test $(stat -c %i file) = $(stat -c %i twin) && echo same
test $(du -m hole | cut -f1) -lt 5 && echo sparse
stat -c %F ~/.bashrc
"""
TELL_OF_ROOT = "stat -c '%a %U' /opt/of-root; cat /opt/of-root; ls /etc/mtab"


def snapshots(
    runtime: Runtime, sandbox_id: str | None = None, name: str | None = None
) -> list[str]:
    """Ids on all pages of a list."""
    paginator = Sandbox.list_snapshots(sandbox_id, 2, name=name, **runtime.sdk)
    found = []
    while paginator.has_next:
        found += [one.snapshot_id for one in paginator.next_items()]
    return found


def tell(sandbox: Sandbox) -> str:
    """What there is of the files that the test made."""
    own = sandbox.commands.run(f"( {TELL_KINDS} ) 2>&1; true").stdout
    return own + sandbox.commands.run(f"{TELL_OF_ROOT} 2>&1; true", user="root").stdout


def test_every_kind_of_file_comes_along(runtime: Runtime, sandbox: Sandbox) -> None:
    sandbox.commands.run(MAKE_KINDS)
    sandbox.commands.run(MAKE_OF_ROOT, user="root")
    before = tell(sandbox)
    assert "\nsame\nsparse\ndirectory\n600 root\nkept\n" in before
    assert "'/etc/mtab': No such file" in before
    snapshot = sandbox.create_snapshot()
    sandbox.commands.run("rm -r ~/kinds")
    made = Sandbox.create(snapshot.snapshot_id, **runtime.sdk)
    assert tell(made) == before
    assert made.commands.run("hostname").stdout.strip() == made.sandbox_id
    made.kill()
    Sandbox.delete_snapshot(snapshot.snapshot_id, **runtime.sdk)


def test_it_is_taken_while_programs_write(runtime: Runtime, sandbox: Sandbox) -> None:
    sandbox.commands.run(
        "while :; do echo x >> a; echo x >> b; done", background=True, timeout=0
    )
    wait_for(lambda: sandbox.files.exists("b"))
    snapshot = sandbox.create_snapshot()
    size = sandbox.files.get_info("a").size
    wait_for(lambda: sandbox.files.get_info("a").size > size)  # it goes on
    made = Sandbox.create(snapshot.snapshot_id, **runtime.sdk)
    sizes = [made.files.get_info(name).size for name in ("a", "b")]
    assert 0 <= sizes[0] - sizes[1] <= 2
    made.kill()
    Sandbox.delete_snapshot(snapshot.snapshot_id, **runtime.sdk)


def test_it_outlives_its_sandbox_and_the_runtime(own_runtime: Runtime) -> None:
    source = Sandbox.create(**own_runtime.sdk)
    source.files.write("kept", "yes")
    snapshot = source.create_snapshot()
    source.kill()
    own_runtime.restart(signal.SIGKILL)
    assert snapshots(own_runtime) == [snapshot.snapshot_id]
    made = Sandbox.create(snapshot.snapshot_id, **own_runtime.sdk)
    assert made.files.read("kept") == "yes"
    assert Sandbox.delete_snapshot(snapshot.snapshot_id, **own_runtime.sdk) is True
    own_runtime.restart(signal.SIGTERM)
    assert made.files.read("kept") == "yes"  # what stands on it lives on
    assert snapshots(own_runtime) == []
    layers = own_runtime.root / "isolation" / "snapshots"
    assert len(list(layers.iterdir())) == 1
    made.kill()
    wait_for(lambda: not list(layers.iterdir()))


def test_layers_lie_on_each_other(runtime: Runtime) -> None:
    made, taken = [Sandbox.create(**runtime.sdk)], []
    for number in range(3):
        made[-1].files.write(f"f{number}", str(number))
        made[-1].files.write("last", str(number))
        taken.append(made[-1].create_snapshot().snapshot_id)
        made.append(Sandbox.create(taken[-1], **runtime.sdk))
    made[-1].files.remove("f0")
    taken.append(made[-1].create_snapshot().snapshot_id)
    for snapshot_id in taken[:-1]:
        Sandbox.delete_snapshot(snapshot_id, **runtime.sdk)
    for sandbox in made:
        sandbox.kill()
    top = Sandbox.create(taken[-1], **runtime.sdk)
    assert top.commands.run("ls f*; cat f1 f2 last").stdout == "f1\nf2\n122"
    top.kill()
    Sandbox.delete_snapshot(taken[-1], **runtime.sdk)


def test_names_and_tags(runtime: Runtime, sandbox: Sandbox) -> None:
    sandbox.files.write("which", "first")
    first = sandbox.create_snapshot(name="tools")
    assert first.snapshot_id == "local/tools:default"
    assert first.names == ["local/tools:default"]
    sandbox.files.write("which", "tagged")
    tagged = sandbox.create_snapshot(name="tools:v2")
    sandbox.files.write("which", "second")
    assert sandbox.create_snapshot(name="tools").snapshot_id == first.snapshot_id
    found = snapshots(runtime, name="tools")
    assert sorted(found) == [first.snapshot_id, tagged.snapshot_id]
    assert Template.exists("tools:v2", **runtime.sdk) is True
    assert Template.exists("tools:v3", **runtime.sdk) is False
    wanted = {"tools": "second", "local/tools:v2": "tagged", "tools:default": "second"}
    for reference, content in wanted.items():
        made = Sandbox.create(reference, **runtime.sdk)
        assert made.files.read("which") == content
        made.kill()
    with pytest.raises(SandboxException, match="not found"):
        Sandbox.create("tools:v3", **runtime.sdk)
    for reference in found:
        assert Sandbox.delete_snapshot(reference, **runtime.sdk) is True
        assert Sandbox.delete_snapshot(reference, **runtime.sdk) is False


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "base"}, 400, "name of a template"),
        ({"name": "no spaces"}, 400, "invalid snapshot name"),
        ({"name": "../x"}, 400, "invalid snapshot name"),
        ({"name": 7}, 400, "must be a string"),
        ({"memory": True}, 501, "with memory: not supported"),
    ],
)
def test_what_cannot_be_taken(
    runtime: Runtime, shared: Sandbox, body: object, status: int, message: str
) -> None:
    path = f"/sandboxes/{shared.sandbox_id}/snapshots"
    answer = runtime.call("POST", path, body)
    assert (answer.status, answer.json["code"]) == (status, status)
    assert message in answer.json["message"]
    assert runtime.call("POST", "/sandboxes/inosuch/snapshots", {}).status == 404


def test_a_base_tree_is_not_deleted(runtime: Runtime) -> None:
    answer = runtime.call("DELETE", "/templates/base")
    assert (answer.status, "base tree" in answer.json["message"]) == (501, True)


def test_lists_can_be_narrowed(runtime: Runtime, sandbox: Sandbox) -> None:
    other = Sandbox.create(**runtime.sdk)
    taken = [one.create_snapshot().snapshot_id for one in (sandbox, other, sandbox)]
    assert snapshots(runtime, sandbox_id=sandbox.sandbox_id) == [taken[2], taken[0]]
    assert snapshots(runtime)[:3] == taken[::-1]
    other.kill()
    for snapshot_id in taken:
        Sandbox.delete_snapshot(snapshot_id, **runtime.sdk)


def test_a_paused_sandbox_can_be_taken_and_stays_so(
    runtime: Runtime, sandbox: Sandbox
) -> None:
    sandbox.files.write("kept", "yes")
    sandbox.pause()
    snapshot = sandbox.create_snapshot()
    assert not sandbox.is_running()
    made = Sandbox.create(snapshot.snapshot_id, **runtime.sdk)
    assert made.files.read("kept") == "yes"
    made.kill()
    Sandbox.delete_snapshot(snapshot.snapshot_id, **runtime.sdk)
    assert runtime.call("POST", f"/sandboxes/{sandbox.sandbox_id}/fork").status == 409


def forked(source: Sandbox, count: int = 1, timeout: int = 90) -> list[Sandbox]:
    """The forks, none of which may have failed."""
    made = source.fork(count=count, timeout=timeout)
    assert not [one for one in made if isinstance(one, Exception)]
    return [one for one in made if isinstance(one, Sandbox)]


def test_forks_are_like_their_source_and_their_own(runtime: Runtime) -> None:
    envs, metadata = {"COLOUR": "green"}, {"a": "b"}
    source = Sandbox.create(envs=envs, metadata=metadata, **runtime.sdk)
    source.files.write("state", "before")
    forks = forked(source, 2)
    assert len({source.sandbox_id, *(fork.sandbox_id for fork in forks)}) == 3
    for fork in forks:
        assert fork.commands.run("echo $COLOUR; cat state").stdout == "green\nbefore"
        info = fork.get_info()
        assert (info.metadata, info.template_id) == (metadata, "base")
        assert abs((info.end_at - info.started_at).total_seconds() - 90) < 1
    forks[0].files.write("state", "other")
    assert [one.files.read("state") for one in (source, forks[1])] == ["before"] * 2
    (again,) = forked(forks[0])
    assert again.files.read("state") == "other"
    for sandbox in (source, *forks, again):
        sandbox.kill()
    layers = runtime.root / "isolation" / "snapshots"
    wait_for(lambda: len(list(layers.iterdir())) == len(snapshots(runtime)))


def test_a_token_is_for_one_sandbox_alone(runtime: Runtime) -> None:
    source = Sandbox.create(**runtime.sdk)
    answer = runtime.call("POST", f"/sandboxes/{source.sandbox_id}/fork")
    fork = answer.json[0]["sandbox"]
    detail = runtime.call("GET", f"/sandboxes/{source.sandbox_id}").json
    assert len({detail["envdAccessToken"], fork["envdAccessToken"]}) == 2
    runtime.call("DELETE", f"/sandboxes/{fork['sandboxID']}")
    source.kill()


def test_forks_past_the_limit_fail_one_by_one(tmp_path: Path) -> None:
    narrow = start_runtime(tmp_path / "narrow", "--max-running", "2")
    try:
        forks = Sandbox.create(**narrow.sdk).fork(count=2)
        kinds = sorted(type(fork).__name__ for fork in forks)
        assert kinds == ["RateLimitException", "Sandbox"]
    finally:
        narrow.stop()


def test_impossible_forks(runtime: Runtime, shared: Sandbox) -> None:
    path = f"/sandboxes/{shared.sandbox_id}/fork"
    for count in (0, 21, 1.5):
        answer = runtime.call("POST", path, {"count": count})
        assert (answer.status, "1 to 20" in answer.json["message"]) == (400, True)
    with pytest.raises(SandboxNotFoundException):
        Sandbox.fork("inosuch", **runtime.sdk)
