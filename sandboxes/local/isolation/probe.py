"""What this machine gives for isolation, found without changing anything."""

import os
import platform
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import cgroups
from .network import missing_tools

INSTALL = "apt-get install -y crun uidmap slirp4netns nftables iproute2"
SHARED_KERNEL = (
    "sandboxes share this machine's Linux kernel; use them for your own code, and "
    "E2B or gVisor for strangers' code"
)


def is_root() -> bool:
    """Whether we hold the real root: uid 0 that maps to the host's uid 0."""
    if os.geteuid() != 0:
        return False
    words = Path("/proc/self/uid_map").read_text().split()
    return words[:3] == ["0", "0", "4294967295"]


def can_shift() -> bool:
    """Whether mounts may shift owners: kernel 5.19 for overlays, and real root."""
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if not release or tuple(map(int, release.groups())) < (5, 19):
        return False
    return is_root()


def problem() -> str:
    """Why sandboxes cannot be isolated here, with the command; empty if they can."""
    if platform.system() != "Linux":
        return "The local runtime needs Linux. Set E2B_API_KEY to use E2B's cloud."
    if not (shutil.which("crun") or shutil.which("runc")):
        return f"No container runtime is installed. Run: {INSTALL}"
    if os.geteuid() != 0:
        return unprivileged_problem()
    if is_root() and not can_shift():
        # Without shifted owners a sandbox's root would be this machine's.
        return "As root this needs Linux 5.19. Run it as an ordinary user instead."
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "This kernel has no overlay file system. Run: modprobe overlay"
    return ""


def unprivileged_problem() -> str:
    """Why an ordinary user cannot start it; empty when he can."""
    if not shutil.which("newuidmap"):
        return f"newuidmap is missing. Run: {INSTALL}"
    name, uid = _user_name(), str(os.getuid())
    try:
        lines = Path("/etc/subuid").read_text().splitlines()
    except OSError:
        lines = []
    if not any(line.split(":")[0] in (name, uid) for line in lines):
        return (
            "Your user has no range of subordinate ids. Run: "
            "sudo usermod --add-subuids 100000-165535 "
            f"--add-subgids 100000-165535 {name}"
        )
    limit = Path("/proc/sys/user/max_user_namespaces")
    if limit.exists() and limit.read_text().strip() == "0":
        return "User namespaces are off. Run: sysctl user.max_user_namespaces=15000"
    return ""


def report() -> Mapping[str, str]:
    """One line a finding, for `doctor` and the administrator's page."""
    missing = missing_tools()
    release = platform.release()
    return {
        "isolation": problem() or "ready",
        "kernel": f"{release} {platform.machine()}",
        "container runtime": _version("crun") or _version("runc") or "missing",
        "runs as": "root, by a launcher" if is_root() else "an ordinary user",
        "owners": "a range of ids per sandbox" if can_shift() else "shared range",
        "user namespaces": _first_line("/proc/sys/user/max_user_namespaces", "yes"),
        "seccomp": _status("Seccomp", "available", "unknown"),
        "cgroups": f"{cgroups.version()}, "
        + ("limits enforced" if cgroups.can_limit() else "limits not enforced"),
        "pause": "freezer" if cgroups.can_limit() else "by signal",
        "network": f"off, missing: {', '.join(missing)}"
        if missing
        else _version("slirp4netns") or "slirp4netns",
        "disk limit": "not enforced, measured",
        "note": SHARED_KERNEL,
    }


def _user_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _version(program: str) -> str:
    path = shutil.which(program)
    if not path:
        return ""
    done = subprocess.run(
        [path, "--version"], capture_output=True, text=True, check=False, env={}
    )
    lines = done.stdout.splitlines()
    return lines[0] if lines else program


def _first_line(path: str, default: str) -> str:
    try:
        return Path(path).read_text().splitlines()[0]
    except (OSError, IndexError):
        return default


def _status(name: str, yes: str, no: str) -> str:
    text = Path("/proc/self/status").read_text()
    return yes if f"{name}:" in text else no
