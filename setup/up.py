"""`./kode up`: bring everything up to date, start it, print the sign-in link."""

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from honcho.printer import Printer

from setup import assets, machine
from setup.errors import SetupError
from setup.supervisor import Part, Supervisor

# A web process that ends this often before it ever answered is given up.
TRIES = 3
# A group and its leader may both be signalled; within this it is one wish.
SAME_SIGNAL_S = 1.0
# Our own processes are never asked through a proxy.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
RUNTIME_NEEDS = (
    *("PATH", "HOME", "USER", "LANG", "TMPDIR", "XDG_RUNTIME_DIR"),
    *("KODE_DATA", "PYTHONUNBUFFERED", "LD_LIBRARY_PATH"),
)
APPS = ("kode_web", "sandboxes", "agents")
NO_BACKEND = "no sandbox can run: no container runtime here, and no E2B_API_KEY"


@dataclass(frozen=True)
class Plan:
    """Where this start listens and keeps its data."""

    host: str
    port: int
    data: Path
    local: bool

    def env(self) -> dict[str, str]:
        """The environment of the web and agents processes."""
        env = dict(os.environ)
        binaries = str(Path(sys.executable).parent)
        env["PATH"] = os.pathsep.join([binaries, env.get("PATH", os.defpath)])
        env["PYTHONUNBUFFERED"] = "1"
        env["KODE_DATA"] = str(self.data)
        env["KODE_HOST"], env["KODE_PORT"] = self.host, str(self.port)
        env.setdefault("KODE_SITE_URL", f"http://localhost:{self.port}")
        if self.local:
            port = runtime_port(self.data)
            env["KODE_RUNTIME_PORT"] = str(port)
            env["KODE_RUNTIME_URL"] = f"http://127.0.0.1:{port}"
            env["KODE_RUNTIME_KEY_FILE"] = str(self.data / "runtime.key")
        return env


def run(options: argparse.Namespace) -> int:
    """Set up, start, and stay until a signal; returns the exit code."""
    may_install = options.yes or bool(os.environ.get("CI"))
    machine.ensure(machine.RUNTIME, may_install=may_install)
    local = machine.sandboxes_possible()
    if not local and not os.environ.get("E2B_API_KEY"):
        if options.check:
            raise SetupError(NO_BACKEND)
        print(f"kode: {NO_BACKEND}; starting without", file=sys.stderr)
    with data_folder(options) as data, claimed(data) as claim:
        port = 0 if options.check else options.port
        plan = Plan(options.host, free_port(options.host, port), data, local)
        claim.write(f"{os.getpid()} http://localhost:{plan.port}")
        claim.flush()
        return asyncio.run(Launch(plan, check=options.check).run())


@contextlib.contextmanager
def data_folder(options: argparse.Namespace) -> Iterator[Path]:
    """The folder for everything that lives on; a passing one for `--check`."""
    if not options.check:
        data: Path = options.data.absolute()
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield data
        return
    data = Path(tempfile.mkdtemp(prefix="kode-check-"))
    try:
        yield data
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def claimed(data: Path) -> Iterator[TextIO]:
    """Keep the data folder for this start; its lock file says who has it."""
    path = data / "up.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid, _, url = file.read().partition(" ")
            raise SetupError(
                f"already running at {url} (process {pid}). Stop it with Ctrl-C or "
                f"`kill {pid}`, or use another folder: ./kode up --data FOLDER --port 0"
            ) from None
        file.truncate(0)
        yield file


def free_port(host: str, port: int = 0) -> int:
    """The port itself if nobody has it, or a free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                f"cannot listen on {host} port {port}: {error.strerror}. "
                "Choose another: ./kode up --port 0"
            ) from error
        return int(probe.getsockname()[1])


def runtime_port(data: Path) -> int:
    """The port of the last start if it is still free: living sandboxes know it."""
    path = data / "runtime.port"
    with contextlib.suppress(OSError, ValueError, SetupError):
        return free_port("127.0.0.1", int(path.read_text()))
    port = free_port("127.0.0.1")
    path.write_text(str(port))
    return port


class Launch:
    """One start of everything, from migrations to the end of the last process."""

    def __init__(self, plan: Plan, *, check: bool) -> None:
        self.plan = plan
        self.check = check
        self.env = plan.env()
        # The answer of --check is all that goes to standard output.
        out = sys.stderr if check else sys.stdout
        self.supervisor = Supervisor(Path("Procfile"), Printer(out))
        self.ended = asyncio.Event()
        self.stopped_at = 0.0

    async def run(self) -> int:
        """Start, answer `--check` or wait for a signal, end everything."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        work = asyncio.create_task(self._work())
        end = asyncio.create_task(self.ended.wait())
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else 0
        finally:
            work.cancel()
            end.cancel()
            await self.supervisor.stop()

    def _on_signal(self) -> None:
        """First time: end in order. Again, a while later: kill what is left."""
        now = time.monotonic()
        if not self.ended.is_set():
            self.stopped_at = now
            self.ended.set()
            # Whoever read our output may be gone, as in `./kode up | head`.
            with contextlib.suppress(OSError):
                print("kode: stopping", file=sys.stderr)
        elif now - self.stopped_at > SAME_SIGNAL_S:
            for part in self.supervisor.parts.values():
                part.kill()

    async def _work(self) -> int:
        local, *_ = await asyncio.gather(
            self._start_runtime(), asyncio.to_thread(assets.build), self._migrate()
        )
        if self.check and not local and not self.env.get("E2B_API_KEY"):
            raise SetupError("no sandbox can run here (see above)")
        web = self.supervisor.start("web", self.env)
        self.supervisor.start("agents", self.env)
        link = asyncio.create_task(self._manage("signinlink"))
        host = self.env["KODE_SITE_URL"].partition("://")[2].partition("/")[0]
        await self._answers(web, f"{_address(self.plan)}/healthz", host, tries=TRIES)
        if self.check:
            link.cancel()
            return await self._check_sandbox()
        self._greet((await link).strip(), local=local)
        await self.ended.wait()
        return 0

    async def _start_runtime(self) -> bool:
        """Start the local runtime; if it can't run here, the rest does without it."""
        if not self.plan.local:
            return False
        part = self.supervisor.start("runtime", runtime_env(self.env))
        url = self.env["KODE_RUNTIME_URL"]
        try:
            host = url.partition("://")[2]
            await self._answers(part, f"{url}/health", host, tries=1)
            key = Path(self.env["KODE_RUNTIME_KEY_FILE"]).read_text().strip()
            if trouble := await asyncio.to_thread(local_trouble, url, key):
                raise SetupError(f"no sandboxes on this machine: {trouble}")
        except SetupError as error:
            print(f"kode: {error}", file=sys.stderr)
            await part.stop()
            self.env = {
                name: value
                for name, value in self.env.items()
                if not name.startswith("KODE_RUNTIME_")
            }
            return False
        return True

    async def _migrate(self) -> None:
        """Bring the database up to date, unless a stamp says that it is."""
        database = self.env.get("DATABASE_URL", "")
        stamp, wanted = self.plan.data / "migrated", schema_hash()
        known = stamp.exists() and stamp.read_text() == wanted
        if known and not database and (self.plan.data / "kode.sqlite3").exists():
            return
        await self._manage("migrate", "--no-input", "--verbosity=0")
        stamp.write_text(wanted)

    async def _manage(self, *command: str) -> str:
        """Run a management command; returns what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "manage.py",
            *command,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            sys.stderr.write(output.decode(errors="replace"))
            raise SetupError(f"`manage.py {command[0]}` failed (see above).")
        return output.decode()

    async def _answers(self, part: Part, url: str, host: str, *, tries: int) -> None:
        """Wait until the part answers at the address, asked for by that host name."""
        while not await asyncio.to_thread(_is_healthy, url, host):
            if part.crashes >= tries:
                raise SetupError(f"the {part.name} process does not start (see above).")
            await asyncio.sleep(0.05)

    async def _check_sandbox(self) -> int:
        """Run a command through a sandbox; its output is our answer."""
        print(await self._manage("checksandbox"), end="", flush=True)
        return 0

    def _greet(self, link: str, *, local: bool) -> None:
        """Say where it is and how to come in."""
        where = "this machine (shared kernel)" if local else "E2B"
        if not local and not self.env.get("E2B_API_KEY"):
            where = "none yet (./kode doctor says what is missing)"
        password = f"as {self.env.get('KODE_ADMIN_EMAIL')} with the password you gave"
        text = (
            f"\n  Kode Web runs at {self.env['KODE_SITE_URL']}"
            f"\n  Sign in {f'(works once): {link}' if link else password}"
            f"\n  Sandboxes: {where}\n  Ctrl-C stops everything.\n"
        )
        if self.plan.host not in ("127.0.0.1", "localhost", "::1"):
            text += (
                "\n  To reach it from other machines set KODE_SITE_URL to its address"
                " there, and KODE_SECURE_COOKIES=0 while it has no TLS.\n"
            )
        # Whoever reads our output may leave as soon as the link is there.
        with contextlib.suppress(OSError):
            print(text, flush=True)


def _address(plan: Plan) -> str:
    """Where this machine reaches the web process."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.host, plan.host)
    return (
        f"http://[{host}]:{plan.port}" if ":" in host else f"http://{host}:{plan.port}"
    )


def local_trouble(url: str, key: str) -> str:
    """Why the runtime can't make sandboxes, in its own words; empty when it can."""
    request = urllib.request.Request(f"{url}/kode/status", headers={"X-API-Key": key})
    try:
        with DIRECT.open(request, timeout=30) as response:
            isolation = str(json.load(response)["probe"].get("isolation", "unknown"))
    except urllib.error.HTTPError as error:
        with error:
            return str(json.load(error).get("message", error))
    except (OSError, ValueError) as error:
        return str(error)
    return "" if isolation == "ready" else isolation


def _is_healthy(url: str, host: str) -> bool:
    """Whether the address answers well when asked for by that host name."""
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with DIRECT.open(request, timeout=5) as response:
            return bool(response.status < 300)
    except (urllib.error.URLError, OSError):
        return False


def runtime_env(env: dict[str, str]) -> dict[str, str]:
    """Of the environment, what the local runtime needs: none of our keys."""
    kept = {name: env[name] for name in RUNTIME_NEEDS if name in env}
    return kept | {k: v for k, v in env.items() if k.startswith("KODE_RUNTIME_")}


def schema_hash() -> str:
    """Changes whenever a migration or a package that may bring one does."""
    digest = hashlib.sha256(Path("requirements.lock").read_bytes())
    migrations = (Path(app).rglob("migrations/*.py") for app in APPS)
    for path in sorted(itertools.chain.from_iterable(migrations)):
        digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()
