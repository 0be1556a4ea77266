"""The browser's part: npm packages and the bundle in static/dist.

Each step leaves a stamp, the hash of what it was made from, and is skipped while
the stamp holds.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from setup import tools
from setup.errors import SetupError
from setup.turns import turn

PACKAGES = Path("node_modules")
DIST = Path("static/dist")


def build() -> None:
    """Bring node_modules and static/dist up to date; does nothing if they are."""
    with turn(tools.FOLDER / "assets.lock"):
        packages = _hash([Path("package.json"), Path("package-lock.json")])
        sources = sorted(Path("static/js").rglob("*.js"))
        bundle = _hash([Path("setup/bundle.mjs"), *sources], packages)
        if _stamp(DIST) == bundle:
            return
        node = tools.find_node() or tools.fetch_node()
        if _stamp(PACKAGES) != packages:
            print("kode: installing JavaScript packages", file=sys.stderr)
            _run([*node.npm, "ci", "--no-progress", "--loglevel=error"], node)
            (PACKAGES / ".stamp").write_text(packages)
        _run([str(node.node), "setup/bundle.mjs"], node)
        (DIST / ".stamp").write_text(bundle)


def _run(command: list[str], node: tools.Node) -> None:
    """Run a step of the build, its output shown only when it fails."""
    done = subprocess.run(
        command, env=node.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        raise SetupError(f"`{' '.join(command)}` failed (see above).")


def _stamp(folder: Path) -> str | None:
    path = folder / ".stamp"
    return path.read_text() if path.exists() else None


def _hash(paths: Iterable[Path], *more: str) -> str:
    """One hash of the files' names and contents and of `more`."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    for text in more:
        digest.update(text.encode())
    return digest.hexdigest()
