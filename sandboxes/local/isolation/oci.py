"""The OCI configuration of one sandbox: everything that confines it, as data."""

import json
import resource
from pathlib import Path
from typing import Any

from sandboxes.local.contract import Limits

from . import cgroups
from .interpreter import HOME, PYTHON_ARGV

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# No NET_RAW, MKNOD, SYS_PTRACE or SYS_ADMIN; sudo and apt work with these.
CAPABILITIES = [
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "SYS_CHROOT",
        "AUDIT_WRITE",
        "SETFCAP",
    ]
]
# Docker's list without what mounts, makes namespaces or keys. Of sockets only unix,
# IPv4, IPv6 and netlink: vsock, for one, belongs to no network namespace and would
# reach the machine that hosts this one. 64-bit calls only: `socketcall` of 32 bits
# hides the family from the filter.
SECCOMP = json.loads((Path(__file__).parent / "seccomp.json").read_text())
MASKED = [
    *(
        f"/proc/{name}"
        for name in [
            "acpi",
            "asound",
            "kcore",
            "keys",
            "latency_stats",
            "timer_list",
            "timer_stats",
            "sched_debug",
            "scsi",
            "kmsg",
        ]
    ),
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READ_ONLY = [f"/proc/{name}" for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"]]
_SEALED = ["nosuid", "noexec", "nodev"]
IDS_PER_SANDBOX = 65536
MAX_SHM_MB = 64
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MAX_FILES = 65536  # of one process; never above our own hard limit


def config(
    *,
    sandbox_id: str,
    rootfs: Path,
    interpreter: Path,
    boot_id: Path | None,
    binds: dict[str, str],
    mappings: list[dict[str, int]],
    shifted: bool,
    cgroup: str | None,
    limits: Limits,
    timeout_s: float,
) -> dict[str, Any]:
    """The content of config.json.

    `binds` are read-only folders of the host by their place inside, with their
    owners shifted where `shifted`; `boot_id` is None where it cannot be covered,
    `cgroup` where none can be made.
    """
    return {
        "ociVersion": "1.0.2",
        "hostname": sandbox_id[:63],
        "root": {"path": str(rootfs), "readonly": False},
        "process": _process(timeout_s),
        "mounts": [
            *_system_mounts(limits),
            _bind(str(interpreter), HOME, ["nosuid"]),
            *([_bind(str(boot_id), BOOT_ID, _SEALED)] if boot_id else ()),
            *(
                _bind(source, place, ["idmap"] if shifted else [])
                for place, source in binds.items()
            ),
        ],
        "linux": {
            "namespaces": [
                {"type": kind}
                for kind in ("pid", "ipc", "uts", "mount", "cgroup", "network", "user")
            ],
            "uidMappings": mappings,
            "gidMappings": mappings,
            "rootfsPropagation": "rprivate",
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": SECCOMP,
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            **(_resources(cgroup, limits) if cgroup else {}),
        },
    }


def _process(timeout_s: float) -> dict[str, Any]:
    files = min(MAX_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return {
        "user": {"uid": 0, "gid": 0},
        "args": [*PYTHON_ARGV, f"{HOME}/init.py"],
        "cwd": "/",
        "env": [f"PATH={PATH}", f"KODE_TTL={timeout_s}"],
        "capabilities": dict.fromkeys(
            ("bounding", "effective", "permitted"), CAPABILITIES
        ),
        "noNewPrivileges": False,
        "oomScoreAdj": 100,
        "rlimits": [
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NOFILE", "soft": files, "hard": files},
        ],
    }


def _resources(cgroup: str, limits: Limits) -> dict[str, Any]:
    """Limits; no `devices` rule: it loads a program that a user namespace may not."""
    memory_bytes = limits.memory_mb << 20
    memory = {"limit": memory_bytes}
    if cgroups.counts_swap():
        memory["swap"] = memory_bytes  # of both together: nothing is swapped
    return {
        "cgroupsPath": cgroup,
        "resources": {
            "pids": {"limit": limits.pids},
            "memory": memory,
            "cpu": {"quota": int(limits.cpus * 100_000), "period": 100_000},
        },
    }


def _bind(source: str, place: str, options: list[str]) -> dict[str, Any]:
    flags = ["bind", "ro", "nodev", *options]
    return {
        "destination": place,
        "type": "bind",
        "source": source,
        "options": flags,
    }


def _system_mounts(limits: Limits) -> list[dict[str, Any]]:
    # Filling more than a quarter of the memory through /dev/shm killed PID 1.
    shm_mb = max(1, min(limits.memory_mb // 4, MAX_SHM_MB))
    dev = ["nosuid", "strictatime", "mode=755", "size=64k"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    shm = ["nosuid", "nodev", "mode=1777", f"size={shm_mb}m"]
    run = ["nosuid", "nodev", "mode=755", "size=16m"]
    return [
        _mount("/proc", "proc", _SEALED),
        _mount("/dev", "tmpfs", dev),
        _mount("/dev/pts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", shm),
        _mount("/dev/mqueue", "mqueue", _SEALED),
        _mount("/sys", "sysfs", [*_SEALED, "ro"]),
        _mount("/run", "tmpfs", run),
    ]


def _mount(place: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": options}
