"""The tree `host`: a small / that holds users, certificates and empty folders.

The host's own /usr is bound over it; nothing else of the host shows.
"""

import hashlib
import os
import shutil
from pathlib import Path

USER_ID = 1000
# Folders of a machine without any content.
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
# Of /etc, what programs of /usr need to work and no administrator fills with secrets:
# profiles, for one, export tokens.
COPIED = [
    "alternatives",
    "ca-certificates.conf",
    "ca-certificates",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "terminfo",
    "skel",
    "localtime",
    "mime.types",
    "services",
    "protocols",
    "nsswitch.conf",
    "perl",
    "less",
]
PROFILE = """\
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
if [ -n "${BASH-}" ] && [ -n "${PS1-}" ] && [ -r ~/.bashrc ]; then . ~/.bashrc; fi
"""
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


def make(root: Path) -> None:
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
    for name in (*COPIED, *(path.name for path in Path("/etc").glob("python3*"))):
        copy(Path("/etc", name), root / "etc" / name)
    write = (root / "etc").joinpath
    write("passwd").write_text(PASSWD)
    write("group").write_text(GROUP)
    write("os-release").write_bytes(Path("/etc/os-release").read_bytes())
    write("profile").write_text(PROFILE)
    write("shells").write_text("/bin/sh\n/bin/bash\n")
    write("mtab").symlink_to("/proc/self/mounts")
    give_home(root, Path("/etc/skel"))
    _lock_passwords(root)
    if Path("/usr/bin/sudo").exists():
        _allow_sudo(root)


def copy(source: Path, target: Path) -> None:
    """Copy a file or folder of /etc if it is there, links as they are."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, ignore_dangling_symlinks=True)
    elif source.exists():
        shutil.copy2(source, target, follow_symlinks=source.name == "localtime")


def give_home(root: Path, skel: Path) -> None:
    """Make the home of `user`."""
    home = root / "home/user"
    home.mkdir(parents=True, exist_ok=True)
    for source in skel.glob(".*"):
        if source.is_file():
            shutil.copyfile(source, home / source.name)
    for path in (home, *home.rglob("*")):
        os.chown(path, USER_ID, USER_ID)


def _lock_passwords(root: Path) -> None:
    shadow = root / "etc/shadow"
    names = [line.split(":")[0] for line in PASSWD.splitlines()]
    shadow.write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in names))
    shadow.chmod(0o640)


def digest(root: Path) -> str:
    """Of all names, modes, owners and contents below a folder."""
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        head = [str(path.relative_to(root)), info.st_mode, info.st_uid, info.st_gid]
        found.update(repr(head).encode())
        if path.is_symlink():
            found.update(os.fsencode(os.readlink(path)))
        elif path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _allow_sudo(root: Path) -> None:
    sudoers = root / "etc/sudoers"
    sudoers.write_text(SUDOERS)
    sudoers.chmod(0o440)
    (root / "etc/pam.d").mkdir(exist_ok=True)
    (root / "etc/pam.d/sudo").write_text(PAM)
    (root / "etc/pam.d/su").write_text(PAM)


def name(upper: Path, sandbox_id: str) -> None:
    """Write the files of /etc that differ from sandbox to sandbox."""
    (upper / "etc").mkdir()
    hosts = f"127.0.0.1 localhost {sandbox_id}\n::1 localhost ip6-localhost\n"
    (upper / "etc/hosts").write_text(hosts)
    (upper / "etc/hostname").write_text(f"{sandbox_id}\n")
    (upper / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
