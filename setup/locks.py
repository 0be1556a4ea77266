"""`./kode lock`: write the lock files from pyproject.toml and package.json.

They hold versions and hashes and no download address, so that a mirror serves
as well as the registry.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setup import tools
from setup.errors import SetupError

OLDEST_PYTHON = "3.12"
RUNTIME = "requirements.lock"
# Lock file -> what `uv pip compile` takes into it, after the ones above it.
PYTHON_LOCKS = {
    RUNTIME: ("pyproject.toml",),
    "requirements-dev.lock": (
        "pyproject.toml",
        "--group",
        "pyproject.toml:test",
        "--group",
        "pyproject.toml:check",
        "--constraints",
        RUNTIME,
    ),
    "setup/requirements-uv.lock": ("--group", "pyproject.toml:uv"),
    "setup/requirements-node.lock": ("--group", "pyproject.toml:node"),
}
NPM_LOCK = "package-lock.json"


def run() -> int:
    """Write every lock file; versions that still fit are kept."""
    for name, sources in PYTHON_LOCKS.items():
        _compile(sources, Path(name))
    _lock_npm(Path())
    return 0


def stale() -> list[str]:
    """The lock files that no longer follow from what they are made from."""
    names = (*PYTHON_LOCKS, NPM_LOCK)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        changed = pool.map(lambda name: _differs(name, folder), names)
        return [name for name, differs in zip(names, changed, strict=True) if differs]


def _differs(name: str, folder: str) -> bool:
    """Whether writing the lock file again, over a copy, changes it."""
    copy = Path(folder) / Path(name).name
    shutil.copy(name, copy)
    if name == NPM_LOCK:
        shutil.copy("package.json", folder)
        shutil.copy(".npmrc", folder)
        _lock_npm(Path(folder))
    else:
        _compile(PYTHON_LOCKS[name], copy)
    return copy.read_bytes() != Path(name).read_bytes()


def _compile(sources: tuple[str, ...], output: Path) -> None:
    command = [
        tools.find_uv(),
        "pip",
        "compile",
        *sources,
        "--output-file",
        str(output),
    ]
    command += ["--universal", "--generate-hashes", "--no-emit-index-url"]
    command += ["--python", sys.executable, "--no-python-downloads"]
    command += ["--python-version", OLDEST_PYTHON, "--annotation-style", "line"]
    command += ["--custom-compile-command", "./kode lock", "--quiet"]
    if subprocess.run(command).returncode:
        raise SetupError(f"uv could not resolve {output} (see above).")


def _lock_npm(folder: Path) -> None:
    node = tools.find_node() or tools.fetch_node()
    command = [*node.npm, "install", "--package-lock-only", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, env=node.env(), capture_output=True)
    if done.returncode:
        raise SetupError(f"npm could not resolve: {done.stderr.decode()}")
    # Who gives money to whom is no part of what is installed.
    lock = json.loads((folder / "package-lock.json").read_text())
    for package in lock["packages"].values():
        package.pop("funding", None)
    (folder / "package-lock.json").write_text(json.dumps(lock, indent=2) + "\n")
