"""What this machine has: programs, versions, and the packages it lacks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from setup.errors import SetupError

# Debian keeps some of these out of an ordinary user's PATH.
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin")


@dataclass(frozen=True)
class Part:
    """A system program: what it is called, where it comes from, what it gives.

    Any one of `programs` will do. `without` says what works when it is missing.
    """

    name: str
    programs: tuple[str, ...]
    package: str
    without: str
    folders: tuple[str, ...] = ()

    def path(self) -> str | None:
        """Where the first of the programs is, or None."""
        folders = [os.environ.get("PATH", ""), *SYSTEM_FOLDERS, *self._found_folders()]
        where = os.pathsep.join(folders)
        found = (shutil.which(program, path=where) for program in self.programs)
        return next((path for path in found if path), None)

    def _found_folders(self) -> list[str]:
        root = Path("/")
        return [
            str(path)
            for pattern in self.folders
            for path in sorted(root.glob(pattern.lstrip("/")), reverse=True)
        ]


NO_SANDBOXES = "no sandboxes on this machine"
RUNTIME = (
    Part("container runtime", ("crun", "runc"), "crun", NO_SANDBOXES),
    Part("user id maps", ("newuidmap",), "uidmap", NO_SANDBOXES),
    Part("network helper", ("slirp4netns",), "slirp4netns", "no internet in sandboxes"),
    Part("packet filter", ("nft",), "nftables", "no internet in sandboxes"),
    Part("ip", ("ip",), "iproute2", "no internet in sandboxes"),
    Part("tree builder", ("mmdebstrap",), "mmdebstrap", "no template `base`"),
)
TESTS = (
    Part(
        "browser",
        ("chromium", "chromium-browser", "google-chrome", "chrome"),
        "chromium",
        "browser tests are skipped",
    ),
    Part(
        "PostgreSQL",
        ("postgres",),
        "postgresql",
        "PostgreSQL tests are skipped",
        folders=POSTGRES_FOLDERS,
    ),
    Part(
        "Redis or Valkey",
        ("valkey-server", "redis-server"),
        "redis-server",
        "Redis tests are skipped",
    ),
    # Sandboxes of the template `host` have this machine's programs.
    Part("full-screen program", ("vim", "less"), "less", "a terminal test fails"),
)


def missing(parts: Iterable[Part]) -> list[Part]:
    """The parts that are not on this machine."""
    return [part for part in parts if part.path() is None]


def sandboxes_possible() -> bool:
    """Whether the local runtime finds a container runtime on this Linux machine."""
    return sys.platform == "linux" and RUNTIME[0].path() is not None


def install_command(parts: Iterable[Part]) -> str:
    """The command that installs `parts`, for a person to run."""
    packages = " ".join(sorted({part.package for part in parts}))
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install --no-install-recommends {packages}"


def ensure(parts: Iterable[Part], *, may_install: bool) -> None:
    """Install what is missing if allowed, else say the command and what lacks.

    Never installs for an ordinary user, nor without apt.
    """
    lacking = missing(parts)
    if not lacking or sys.platform != "linux":
        return
    if may_install and os.geteuid() == 0 and shutil.which("apt-get"):
        _apt_install(lacking)
        return
    print(f"kode: {report(lacking)}", file=sys.stderr)


def report(lacking: list[Part]) -> str:
    """What is not here, what does not work without it, and the command."""
    names = ", ".join(part.package for part in lacking)
    effects = "; ".join(dict.fromkeys(part.without for part in lacking))
    return f"not here: {names}. So: {effects}.\n  Run: {install_command(lacking)}"


def _apt_install(parts: list[Part]) -> None:
    """Install by apt without recommends and without questions."""
    packages = sorted({part.package for part in parts})
    print(f"kode: installing {' '.join(packages)}", file=sys.stderr)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            sys.stderr.write(done.stdout.decode(errors="replace"))
            raise SetupError(f"`{' '.join(command)}` failed (see above).")
