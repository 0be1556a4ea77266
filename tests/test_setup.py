"""./kode: what it finds on a machine, what it says, and how it keeps parts running."""

import asyncio
import fcntl
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from honcho.printer import Printer

from setup import assets, up, variables
from setup.errors import SetupError
from setup.supervisor import Supervisor

ROOT = Path(__file__).resolve().parent.parent
REAL_PYTHON = os.path.realpath(sys.executable)
DEADLINE_S = 30
# What ./kode itself calls; a PATH of these alone has no python, node or crun.
SHELL_TOOLS = ("sh", "cat", "dirname", "sort", "head", "id", "cmp", "env", "uname")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout in which nothing was set up yet."""
    shutil.copy(ROOT / "kode", tmp_path)
    shutil.copytree(ROOT / "setup", tmp_path / "setup")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / lock, tmp_path)
    return tmp_path


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH with a shell's tools and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in SHELL_TOOLS:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    return folder


def kode(
    tree: Path, *words: str, path: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ./kode with nothing in its environment but what is given."""
    return subprocess.run(
        [str(tree / "kode"), *words],
        env={"PATH": str(path), "HOME": str(tree), **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process exists and is not just waiting to be collected."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_shim_that_does_not_run_is_passed_over(tree: Path, bare_path: Path) -> None:
    script(bare_path / "python3.19", "echo no such version >&2; exit 127")
    (bare_path / "python3.12").symlink_to(REAL_PYTHON)
    done = kode(tree, "doctor", path=bare_path)
    assert done.stdout.startswith("ok  python"), done.stderr


def test_the_newest_interpreter_wins(tree: Path, bare_path: Path) -> None:
    body = 'case $2 in *version_info*) echo "3099 $0";; *) echo newest "$@";; esac'
    script(bare_path / "python3.19", body)
    (bare_path / "python3.12").symlink_to(REAL_PYTHON)
    done = kode(tree, "doctor", path=bare_path)
    assert done.stdout == "newest -m setup doctor\n"


def test_pyenv_versions_are_found(tree: Path, bare_path: Path) -> None:
    binaries = tree / ".pyenv/versions/3.12.1/bin"
    binaries.mkdir(parents=True)
    (binaries / "python3").symlink_to(REAL_PYTHON)
    done = kode(tree, "doctor", path=bare_path)
    assert done.stdout.startswith("ok  python"), done.stderr


def test_a_wrong_choice_of_interpreter_is_refused(tree: Path, bare_path: Path) -> None:
    done = kode(tree, "up", path=bare_path, KODE_PYTHON="/bin/false")
    assert done.returncode == 1
    assert "KODE_PYTHON=/bin/false is not a working Python 3.12" in done.stderr
    assert not (tree / ".venv").exists()


def test_an_unknown_command_shows_the_known_ones(tree: Path, bare_path: Path) -> None:
    done = kode(tree, "upp", path=bare_path)
    assert done.returncode == 2
    assert "no command 'upp'" in done.stderr
    assert "./kode COMMAND" in done.stderr


def test_an_unknown_flag_shows_the_known_ones() -> None:
    command = [sys.executable, "-m", "setup", "up", "--prot", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert "unrecognized arguments: --prot" in done.stderr


def test_doctor_says_what_is_missing_and_the_command(bare_path: Path) -> None:
    done = doctor(bare_path)
    assert done.returncode == 1
    assert "--  container runtime" in done.stdout
    assert "--no-install-recommends" in done.stdout
    assert "crun" in done.stdout.splitlines()[-3]
    assert "Install crun, or set E2B_API_KEY." in done.stdout


def test_doctor_is_content_with_a_cloud_key(bare_path: Path) -> None:
    done = doctor(bare_path, E2B_API_KEY="e2b_0")
    assert done.returncode == 0
    assert "e2b_0" not in done.stdout


def doctor(path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "setup", "doctor"],
        cwd=ROOT,
        env={"PATH": str(path), **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def test_a_folder_in_use_names_its_user(tmp_path: Path) -> None:
    with (tmp_path / "up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4242 http://localhost:8000")
        file.flush()
        with pytest.raises(SetupError, match=r"localhost:8000 \(process 4242\)"):
            up.claimed(tmp_path).__enter__()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=rf"port {port}: .* --port 0"):
            up.free_port("127.0.0.1", port)


def test_the_runtime_keeps_its_port(tmp_path: Path) -> None:
    port = up.runtime_port(tmp_path)
    assert up.runtime_port(tmp_path) == port
    with socket.create_server(("127.0.0.1", port)):
        assert up.runtime_port(tmp_path) != port


def test_the_runtime_gets_none_of_our_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2B_API_KEY", "e2b_0")
    monkeypatch.setenv("KODE_SECRET_KEY", "s3cret")
    plan = up.Plan("127.0.0.1", 8000, tmp_path, local=True)
    assert {"e2b_0", "s3cret"}.isdisjoint(up.runtime_env(plan.env()).values())


def supervisor(tmp_path: Path, command: str) -> tuple[Supervisor, io.StringIO]:
    """A supervisor of one part named `part`, and what it prints."""
    procfile, output = tmp_path / "Procfile", io.StringIO()
    procfile.write_text(f"part: {command}\n")
    return Supervisor(procfile, Printer(output)), output


async def test_a_crashed_part_comes_back(tmp_path: Path) -> None:
    parts, output = supervisor(tmp_path, "echo started; exit 3")
    parts.start("part", dict(os.environ))
    await until(lambda: output.getvalue().count("| started") >= 2)
    await parts.stop()
    assert "ended (3); again in 1 s" in output.getvalue()


async def test_stopping_ends_a_deaf_part_and_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("setup.supervisor.GRACE_S", 0.2)
    deaf = "trap '' TERM; sleep 600 & echo child $!; while :; do wait; done"
    parts, output = supervisor(tmp_path, deaf)
    parts.start("part", dict(os.environ))
    await until(lambda: "child" in output.getvalue())
    child = int(output.getvalue().split()[-1])
    await parts.stop()
    await until(lambda: not alive(child))


async def test_a_long_line_is_printed(tmp_path: Path) -> None:
    parts, output = supervisor(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x")
    parts.start("part", dict(os.environ))
    await until(lambda: output.getvalue().count("x") == 3_000_000)
    await parts.stop()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv here")
async def test_a_killed_launcher_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("part: exec sleep 600\n")
    code = """if True:
        import asyncio, os, sys
        from pathlib import Path
        from honcho.printer import Printer
        from setup.supervisor import Supervisor
        async def main():
            parts = Supervisor(Path(sys.argv[1]), Printer())
            part = parts.start("part", dict(os.environ))
            while part.pid is None:
                await asyncio.sleep(0.02)
            print(part.pid, flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())"""
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "Procfile")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout is not None
    with launcher.stdout:
        pid = int(launcher.stdout.readline())
        assert alive(pid)
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        await until(lambda: not alive(pid))


def test_the_bundle_follows_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("package.json", "package-lock.json", "setup/bundle.mjs"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    page = tmp_path / "static/js/pages/hello.js"
    page.parent.mkdir(parents=True)
    page.write_text("console.log('first');")
    monkeypatch.chdir(tmp_path)
    assets.build()
    first = (tmp_path / "static/dist").stat().st_ino
    assets.build()
    assert (tmp_path / "static/dist").stat().st_ino == first
    page.write_text("console.log('second');")
    assets.build()
    assert "second" in (tmp_path / "static/dist/hello.js").read_text()
    assert (tmp_path / "static/dist/xterm.css").exists()


def test_variables_are_read_from_the_settings_source() -> None:
    source = 'A = env_int("KODE_A", 1)\nB = f(env_str("B_KEY"))\nC = other("KODE_C")'
    assert variables.read_by_settings(source) == {"KODE_A", "B_KEY"}


def test_setup_that_was_broken_off_starts_over(tree: Path, bare_path: Path) -> None:
    (bare_path / "python3.12").symlink_to(REAL_PYTHON)
    for tool in ("mkdir", "rm", "cp", "touch", "flock"):
        (bare_path / tool).symlink_to(str(shutil.which(tool)))
    body = 'case $1 in --version) ;; *) echo "$@" >>calls; exit 1;; esac'
    script(bare_path / "uv", body)
    (tree / ".venv/bin").mkdir(parents=True)
    (tree / ".venv/bin/python").symlink_to(REAL_PYTHON)
    (tree / ".venv/.unfinished").touch()
    kode(tree, "up", path=bare_path)
    assert (tree / "calls").read_text().startswith("venv ")


def test_up_runs_and_stops_when_nobody_reads_its_output(tmp_path: Path) -> None:
    """As in `./kode up | head -1`: the reader goes, the product stays."""
    command = [sys.executable, "-m", "setup", "up", "--port", "0", "--data", tmp_path]
    shut = ("KODE_", "DJANGO_", "PYTEST_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(shut)}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "/accounts/link/" in line:
                break
        process.stdout.close()
        address = re.search(r"http://localhost:\d+", line)
        assert address is not None
        for _ in range(20):
            with urllib.request.urlopen(f"{address[0]}/healthz") as answer:
                assert answer.status == 200
        process.terminate()
        assert process.wait(30) is not None
