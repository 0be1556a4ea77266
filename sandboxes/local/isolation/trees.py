"""Base trees: what a sandbox's file system starts from.

`host` is the host's own /usr, read-only, over a small skeleton that holds nothing
else of the host. `base` is a Debian of its own, built on demand by mmdebstrap.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from pathlib import Path

from sandboxes.local.contract import BaseTree

from . import skeleton
from .oci import PATH

logger = logging.getLogger(__name__)

BASE_PACKAGES = [
    "apt",
    "attr",
    "bash",
    "build-essential",
    "ca-certificates",
    "coreutils",
    "curl",
    "file",
    "findutils",
    "git",
    "iproute2",
    "jq",
    "less",
    "locales",
    "nano",
    "nodejs",
    "npm",
    "openssh-client",
    "openssl",
    "procps",
    "psmisc",
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-venv",
    "ripgrep",
    "sudo",
    "tar",
    "tmux",
    "unzip",
    "vim-tiny",
    "wget",
    "xz-utils",
    "zip",
]
EXTRA_CA = Path("/usr/local/share/ca-certificates")
RELEASE = Path("/etc/os-release")
SOURCES = (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*"))


class Trees:
    """The base trees under one folder. Each version of a tree is a folder of its
    own, `host-<digest>`: what a running sandbox stands on is never changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._host = ""
        self._building: asyncio.Task[None] | None = None
        self._failure = self._step = ""
        self._begun = 0.0

    def path(self, tree: str) -> Path:
        """The folder of a version."""
        return self.folder / tree

    def current(self, template: str) -> str:
        """The version of a template that new sandboxes get. Raises OSError."""
        if template == "base" and self._base().state != "ready":
            raise OSError("The base tree `base` is not built yet.")
        return self._host if template == "host" else template

    def binds(self, tree: str) -> dict[str, str]:
        """Folders of the host that belong to a version, by their place inside."""
        return {"/usr": "/usr"} if tree.startswith("host-") else {}

    def prepare(self) -> None:
        """Make `host`, looked at anew at each start: certificates may change."""
        self.folder.mkdir(exist_ok=True, mode=0o700)
        for name in ("host.new", "base.new"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        draft = self.folder / "host.new"
        skeleton.make(draft)
        self._host = f"host-{skeleton.digest(draft)}"
        if self.path(self._host).is_dir():
            shutil.rmtree(draft)
        else:
            draft.rename(self.path(self._host))

    def prune(self, used: set[str]) -> None:
        """Remove versions of `host` that no sandbox stands on any more."""
        for path in self.folder.glob("host-*"):
            if path.name not in used | {self._host}:
                shutil.rmtree(path, ignore_errors=True)

    def all(self) -> list[BaseTree]:
        """Each tree with its state."""
        return [
            BaseTree("host", "ready", "the host's own /usr, read-only"),
            self._base(),
        ]

    def _base(self) -> BaseTree:
        if (self.path("base") / "etc").is_dir():
            return BaseTree("base", "ready")
        if self._building and not self._building.done():
            spent_s = int(time.monotonic() - self._begun)
            return BaseTree("base", "building", f"{spent_s} s, {self._step}")
        if self._failure:
            return BaseTree("base", "failed", self._failure)
        if not shutil.which("mmdebstrap", path=PATH):
            return BaseTree("base", "absent", "needs: apt-get install -y mmdebstrap")
        return BaseTree("base", "absent", "built on demand, about 4 minutes")

    def build_base(self) -> None:
        """Begin to build `base`, unless it is there or on its way."""
        if self._base().state in ("absent", "failed"):
            self._failure, self._step = "", "beginning"
            self._begun = time.monotonic()
            self._building = asyncio.create_task(self._build())

    async def close(self) -> None:
        """Give up a build that is under way."""
        if self._building:
            self._building.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._building

    async def _build(self) -> None:
        draft, log = self.folder / "base.new", self.folder / "base.log"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            await self._debootstrap(draft, log)
            _finish_base(draft)
            draft.rename(self.path("base"))
        except (OSError, ValueError) as error:
            self._failure = f"{error}; see {log.name} in the runtime's folder"
            logger.warning("the base tree is not built: %s", error)
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)

    async def _debootstrap(self, draft: Path, log: Path) -> None:
        """Run mmdebstrap, its words going to `log` and the last into the detail."""
        program = shutil.which("mmdebstrap", path=PATH)
        if not program:
            raise OSError("mmdebstrap is missing. Run: apt-get install -y mmdebstrap")
        process = await asyncio.create_subprocess_exec(
            program,
            *_options(),
            _suite(),
            str(draft),
            *_sources(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": PATH, "TMPDIR": str(self.folder)},
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            with log.open("wb") as output:
                async for line in process.stderr:
                    output.write(line)
                    if line.startswith((b"I: ", b"E: ")):
                        self._step = line[3:].decode(errors="replace").strip()
            code = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if code:
            raise OSError(self._step or f"mmdebstrap ended with {code}")


def _options() -> list[str]:
    """With the host's extra authorities: a proxy of its network may need them."""
    options = ["--variant=minbase", "--mode=root"]
    options.append(f"--include={','.join(BASE_PACKAGES)}")
    if any(EXTRA_CA.glob("*.crt")):
        options += [
            f"--customize-hook=copy-in {EXTRA_CA} {EXTRA_CA.parent}",
            '--customize-hook=chroot "$1" update-ca-certificates',
        ]
    return options


def _suite() -> str:
    """The host's own release. Raises ValueError where it is no Debian or Ubuntu."""
    pairs = (line.split("=", 1) for line in RELEASE.read_text().splitlines() if line)
    names = {key: value.strip('"') for key, value in pairs}
    if names.get("ID") not in ("debian", "ubuntu") or "VERSION_CODENAME" not in names:
        raise ValueError("`base` is made from the host's packages: Debian or Ubuntu")
    return names["VERSION_CODENAME"]


def _sources() -> list[str]:
    """The host's own package sources, as mmdebstrap takes them."""
    kinds = (".list", ".sources")
    return [
        str(path)
        for path in SOURCES
        if path.suffix in kinds and path.is_file() and path.stat().st_size
    ]


def _finish_base(root: Path) -> None:
    """Add the user and what lets him use sudo to a new Debian."""
    passwd, group = root / "etc/passwd", root / "etc/group"
    passwd.write_text(passwd.read_text() + skeleton.PASSWD.splitlines()[-1] + "\n")
    lines = [
        "sudo:x:27:user" if line.startswith("sudo:") else line
        for line in group.read_text().splitlines()
    ]
    group.write_text("\n".join((*lines, skeleton.GROUP.splitlines()[-1])) + "\n")
    skeleton.give_home(root, root / "etc/skel")
    with (root / "etc/shadow").open("a") as shadow:
        shadow.write("user:*:19000:0:99999:7:::\n")
    (root / "etc/sudoers.d").mkdir(exist_ok=True)
    (root / "etc/sudoers.d/user").write_text(skeleton.SUDOERS.splitlines()[1] + "\n")
    (root / "etc/sudoers.d/user").chmod(0o440)
