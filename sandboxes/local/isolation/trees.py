"""Base trees: what a sandbox's file system starts from.

`host` is the host's own /usr, read-only, over a small skeleton that holds nothing
else of the host. `base` is a Debian of its own, built on demand by mmdebstrap.
"""

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path

from sandboxes.local.contract import BaseTree

USER_ID = 1000
# Folders of a machine without any content; sticky ones are for everybody.
FOLDERS = [
    "dev",
    "etc",
    "home",
    "home/user",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "usr",
    "var",
]
VAR_FOLDERS = ["cache", "lib", "local", "log", "mail", "opt", "spool"]
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
COPIED = [
    "alternatives",
    "ca-certificates.conf",
    "ca-certificates",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "inputrc",
    "terminfo",
    "bash.bashrc",
    "profile",
    "profile.d",
    "skel",
    "localtime",
    "mime.types",
    "services",
    "protocols",
    "nsswitch.conf",
    "shells",
    "perl",
    "magic",
    "vim",
    "vimrc",
    "less",
    "python3",
    "python3.11",
    "nanorc",
]
PASSWD = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
user:x:1000:1000:user:/home/user:/bin/bash
"""
GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
sudo:x:27:user
www-data:x:33:
staff:x:50:
users:x:100:
nogroup:x:65534:
user:x:1000:
"""
SUDOERS = "root ALL=(ALL:ALL) ALL\nuser ALL=(ALL:ALL) NOPASSWD: ALL\n"
PAM = "auth sufficient pam_permit.so\naccount sufficient pam_permit.so\n"
BASE_PACKAGES = [
    "apt",
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
    "procps",
    "psmisc",
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
BASE_SUITE = "bookworm"
SOURCES = (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*"))


class Trees:
    """The base trees under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._building: asyncio.Task[None] | None = None
        self._failure = ""
        self._begun = 0.0

    def path(self, name: str) -> Path:
        """The folder of a tree."""
        return self.folder / name

    def binds(self, name: str) -> dict[str, str]:
        """Folders of the host that belong to the tree, by their place inside."""
        return {"/usr": "/usr"} if name == "host" else {}

    def prepare(self) -> None:
        """Make `host`, anew at each start: the host's certificates may change."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        draft = self.folder / "host.new"
        shutil.rmtree(draft, ignore_errors=True)
        _skeleton(draft)
        shutil.rmtree(self.path("host"), ignore_errors=True)
        draft.rename(self.path("host"))
        if not self._building:
            shutil.rmtree(self.folder / "base.new", ignore_errors=True)

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
            return BaseTree("base", "building", f"{spent_s} s, about 240 s in all")
        if self._failure:
            return BaseTree("base", "failed", self._failure)
        if not shutil.which("mmdebstrap"):
            return BaseTree("base", "absent", "needs: apt-get install -y mmdebstrap")
        return BaseTree("base", "absent", "built on demand, about 4 minutes")

    def build_base(self) -> None:
        """Begin to build `base`, unless it is there or on its way."""
        if self._base().state in ("absent", "failed"):
            self._failure, self._begun = "", time.monotonic()
            self._building = asyncio.create_task(self._build())

    async def close(self) -> None:
        """Give up a build that is under way."""
        if self._building:
            self._building.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._building

    async def _build(self) -> None:
        draft = self.folder / "base.new"
        log = self.folder / "base.log"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    "mmdebstrap",
                    "--variant=minbase",
                    "--mode=root",
                    f"--include={','.join(BASE_PACKAGES)}",
                    BASE_SUITE,
                    str(draft),
                    *_sources(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
                try:
                    code = await process.wait()
                except asyncio.CancelledError:
                    process.kill()
                    await process.wait()
                    raise
            if code:
                lines = log.read_text(errors="replace").strip().splitlines()
                raise OSError(lines[-1] if lines else f"mmdebstrap ended with {code}")
            _finish_base(draft)
            draft.rename(self.path("base"))
        except OSError as error:
            self._failure = f"{error}; see {log}"
            shutil.rmtree(draft, ignore_errors=True)


def _sources() -> list[str]:
    """The host's own package sources, as mmdebstrap takes them."""
    return [str(path) for path in SOURCES if path.is_file() and path.stat().st_size]


def _skeleton(root: Path) -> None:
    """A small / with users, certificates and nothing else of the host."""
    for name in (*FOLDERS, *(f"var/{name}" for name in VAR_FOLDERS)):
        (root / name).mkdir(parents=True, mode=0o755)
    for name in ("tmp", "var/tmp"):
        (root / name).mkdir()
        (root / name).chmod(0o1777)
    (root / "root").chmod(0o700)
    (root / "var/run").symlink_to("/run")
    for name in MERGED:
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in COPIED:
        _copy(Path("/etc", name), root / "etc" / name)
    write = (root / "etc").joinpath
    write("passwd").write_text(PASSWD)
    write("group").write_text(GROUP)
    write("os-release").write_bytes(Path("/etc/os-release").read_bytes())
    write("mtab").symlink_to("/proc/self/mounts")
    _users(root)
    if Path("/usr/bin/sudo").exists():
        _allow_sudo(root)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder of /etc if it is there, links as they are."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, ignore_dangling_symlinks=True)
    elif source.exists():
        shutil.copy2(source, target, follow_symlinks=source.name == "localtime")


def _users(root: Path) -> None:
    """Passwordless accounts with homes."""
    home = root / "home/user"
    home.mkdir(parents=True, exist_ok=True)
    for source in Path("/etc/skel").glob(".*"):
        if source.is_file():
            shutil.copyfile(source, home / source.name)
            shutil.copyfile(source, root / "root" / source.name)
    for path in (home, *home.rglob("*")):
        os.chown(path, USER_ID, USER_ID)
    shadow = root / "etc/shadow"
    shadow.write_text("".join(f"{u}:*:19000:0:99999:7:::\n" for u in ("root", "user")))
    shadow.chmod(0o640)


def _allow_sudo(root: Path) -> None:
    sudoers = root / "etc/sudoers"
    sudoers.write_text(SUDOERS)
    sudoers.chmod(0o440)
    (root / "etc/pam.d").mkdir(exist_ok=True)
    (root / "etc/pam.d/sudo").write_text(PAM)
    (root / "etc/pam.d/su").write_text(PAM)


def _finish_base(root: Path) -> None:
    """Add the user, sudo and the host's extra certificates to a new Debian."""
    passwd, group = root / "etc/passwd", root / "etc/group"
    passwd.write_text(passwd.read_text() + PASSWD.splitlines()[-1] + "\n")
    lines = [
        "sudo:x:27:user" if line.startswith("sudo:") else line
        for line in group.read_text().splitlines()
    ]
    group.write_text("\n".join((*lines, GROUP.splitlines()[-1])) + "\n")
    home = root / "home/user"
    home.mkdir()
    for source in (root / "etc/skel").glob(".*"):
        if source.is_file():
            shutil.copyfile(source, home / source.name)
    for path in (home, *home.rglob("*")):
        os.chown(path, USER_ID, USER_ID)
    with (root / "etc/shadow").open("a") as shadow:
        shadow.write("user:*:19000:0:99999:7:::\n")
    (root / "etc/sudoers.d").mkdir(exist_ok=True)
    (root / "etc/sudoers.d/user").write_text(SUDOERS.splitlines()[1] + "\n")
    (root / "etc/sudoers.d/user").chmod(0o440)
    shutil.rmtree(root / "etc/ssl/certs", ignore_errors=True)
    _copy(Path("/etc/ssl/certs"), root / "etc/ssl/certs")
    _copy(Path("/usr/local/share/ca-certificates"), root / "usr/local/share/extra-ca")
