"""`./kode check`: everything that can be said about the code without running it.

Two steps run at a time; each one's output is shown when it fails.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from setup import assets, locks, tools, variables

CODE = ("kode_web", "sandboxes", "agents", "setup")
AT_ONCE = 2


@dataclass(frozen=True)
class Step:
    """One check: `run` returns its complaint, empty when all is well."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Command:
    """A check that is a command; what it prints on failure is the complaint."""

    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)

    def __call__(self) -> str:
        """Run it; empty when it exits with 0."""
        done = subprocess.run(
            self.words,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = done.stdout.decode(errors="replace").strip()
        return (output or f"exit code {done.returncode}") if done.returncode else ""


def run() -> int:
    """Run every step; exit code 1 if any complained."""
    assets.build()
    failed = []
    with tempfile.TemporaryDirectory() as data, ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = {pool.submit(_timed, step): step for step in _steps(data)}
        for job in as_completed(jobs):
            name = jobs[job].name
            complaint, seconds = job.result()
            print(f"{'FAIL' if complaint else 'ok  '} {name} ({seconds:.1f} s)")
            if complaint:
                failed.append(name)
                print("\n".join(f"     {line}" for line in complaint.splitlines()))
            sys.stdout.flush()
    print(f"check: failed: {', '.join(failed)}" if failed else "check: all is well")
    return 1 if failed else 0


def _timed(step: Step) -> tuple[str, float]:
    started = time.monotonic()
    try:
        complaint = step.run()
    except Exception as error:  # A step that cannot run is a failed check.
        complaint = f"{type(error).__name__}: {error}"
    return complaint, time.monotonic() - started


def _steps(data: str) -> list[Step]:
    """The checks, the slowest ones first. `data` is a passing data folder."""
    python, env = sys.executable, {"KODE_DATA": data}
    node = tools.find_node() or tools.fetch_node()
    ruff, djlint = (python, "-m", "ruff"), (python, "-m", "djlint")
    scripts = sorted(map(str, Path("tests/js").glob("*.test.js")))
    steps: dict[str, Callable[[], str]] = {
        "types": Command((python, "-m", "mypy", *CODE), env),
        "lock files": _stale_locks,
        "migrations": _manage("makemigrations", "--check", "--dry-run", env=env),
        "deployment": _manage(
            "check", "--deploy", "--fail-level=WARNING", env=env | _production()
        ),
        "templates": Command((*djlint, "--lint", "--quiet", "templates")),
        "lint": Command((*ruff, "check", "--output-format=concise", "-q", ".")),
        "format": Command((*ruff, "format", "--check", ".")),
        "variables": variables.complaint,
    }
    if scripts:
        steps["JavaScript"] = Command((str(node.node), "--test", *scripts))
    return [Step(name, check) for name, check in steps.items()]


def _manage(*words: str, env: dict[str, str]) -> Command:
    return Command((sys.executable, "manage.py", *words), env)


def _production() -> dict[str, str]:
    """Settings as an owner with a domain and TLS would have them."""
    return {
        "KODE_SITE_URL": "https://kode.example.com",
        "KODE_PREVIEW_DOMAIN": "kode-previews.example.net",
        "KODE_SECRET_KEY": secrets.token_urlsafe(48),
    }


def _stale_locks() -> str:
    stale = locks.stale()
    return f"{', '.join(stale)}: run ./kode lock" if stale else ""
