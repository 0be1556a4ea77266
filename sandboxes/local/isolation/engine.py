"""Makes, finds and removes sandboxes: crun does the isolation, this prepares it.

Runs in the launcher, the only process of the runtime with privileges. A sandbox
is a folder `boxes/<id>` (its files and `box.json`), a control socket, a cgroup
and a container of that id; nothing of it needs this process to live on.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sandboxes.local.contract import (
    BaseTree,
    BoxSpec,
    BoxStats,
    IsolationUnavailable,
    Limits,
)

from . import cgroups, interpreter, oci, probe, syscalls
from .network import Router, missing_tools
from .oci_runtime import OciRuntime
from .trees import Trees

# A place that every user of the host may pass through; ours in a private mount
# namespace, so nobody else sees what hangs there.
MOUNTS = Path("/mnt")
FIRST_ID = 0x20000000
PARALLEL_CREATES = 4
DISK_AGE_S = 20.0
DISK_LIMIT_S = 5.0


@dataclass
class Kept:
    """What `box.json` holds of a sandbox."""

    template: str
    slot: int
    limits: Limits
    pid: int = 0
    number: int | None = None  # on the router's network
    disk: tuple[float, int] = field(default=(0.0, 0), compare=False)


def run_folder(root: Path) -> Path:
    """Sockets and crun's state; short, since a socket's path has 108 bytes."""
    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    base = Path("/run") if os.access("/run", os.W_OK) else Path("/tmp")
    return base / "kode" / name


class Engine:
    """All sandboxes of one root folder. `owner` may use their control sockets."""

    def __init__(self, root: Path, owner: int) -> None:
        self.root, self.owner = root, owner
        self.run = run_folder(root)
        self.boxes = root / "boxes"
        self.trees = Trees(root / "trees")
        self.router = Router(root / "router.json")
        self.found: dict[str, Kept] = {}
        self.oci = OciRuntime(self.run / "oci", root / "oci.log")
        self.shifted = probe.can_shift()
        self.limited = False
        self._creating = asyncio.Semaphore(PARALLEL_CREATES)
        self._namespaces: dict[int, int] = {}
        self._ready = False

    def start(self) -> None:
        """Prepare folders, mounts and trees, find sandboxes, sweep the rest.

        Raises IsolationUnavailable with the command that helps.
        """
        problem = probe.problem()
        if problem:
            raise IsolationUnavailable(problem)
        syscalls.private_mounts()
        if cgroups.version() == "hybrid":
            # crun refuses a hybrid tree; without the empty half it sees version 1.
            syscalls.unmount(cgroups.MOUNT / "unified")
        self.limited = cgroups.can_limit()
        self._prepare_folders()
        self.trees.prepare()
        interpreter.build(self.root / "interpreter")
        syscalls.mount("tmpfs", MOUNTS, "tmpfs", 0, "mode=0711,size=1m")
        (MOUNTS / "python").mkdir()
        source = str(self.root / "interpreter")
        syscalls.mount(source, MOUNTS / "python", "", syscalls.MS_BIND)
        self._ready = True

    def _prepare_folders(self) -> None:
        for folder, mode in (
            (self.boxes, 0o700),
            (self.run.parent, 0o711),
            (self.run, 0o711),
            (self.run / "oci", 0o700),
            (self.run / "control", 0o711),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)

    def probe(self) -> Mapping[str, str]:
        """What this machine gives, one line each."""
        return probe.report()

    def base_trees(self) -> Sequence[BaseTree]:
        """The base trees and their state."""
        return self.trees.all()

    def build_base(self) -> None:
        """Begin to build `base` in the background."""
        self.trees.build_base()

    async def sweep(self) -> list[str]:
        """Ids of sandboxes that live; whatever is left of others is removed."""
        listed = json.loads(await self.oci.call("list", "--format", "json") or "[]")
        states = {entry["id"]: entry["status"] for entry in listed or []}
        for sandbox_id in {p.name for p in self.boxes.iterdir()} | set(states):
            kept = self._read(sandbox_id)
            if kept and states.get(sandbox_id) in ("running", "paused"):
                self.found[sandbox_id] = kept
            else:
                await self.kill(sandbox_id)
        numbers = {i: k.number for i, k in self.found.items() if k.number is not None}
        self.router.adopt(numbers)
        if not self.found:
            self.router.stop()
        return sorted(self.found)

    async def state(self, sandbox_id: str) -> str:
        """`running`, `paused`, or empty when it is gone."""
        if sandbox_id not in self.found:
            return ""
        try:
            answer = json.loads(await self.oci.call("state", sandbox_id))
        except OSError:
            return ""
        status = str(answer["status"])
        return status if status in ("running", "paused") else ""

    async def create(self, spec: BoxSpec) -> None:
        """Make a sandbox; when this returns its control socket takes connections."""
        async with self._creating:
            used = {kept.slot for kept in self.found.values()}
            slot = next(n for n in range(32768) if n not in used)
            kept = Kept(spec.template, slot, spec.limits)
            self.found[spec.sandbox_id] = kept
            try:
                await self._make(spec, kept)
            except BaseException:
                await asyncio.shield(self.kill(spec.sandbox_id))
                raise

    async def _make(self, spec: BoxSpec, kept: Kept) -> None:
        folder = self.boxes / spec.sandbox_id
        (folder / "files" / "upper").mkdir(parents=True)
        (folder / "files" / "work").mkdir()
        self._name(folder / "files" / "upper", spec.sandbox_id)
        here = MOUNTS / spec.sandbox_id
        self._write_config(spec, kept, here / "root")
        listener = self._listen(spec.sandbox_id)
        try:
            self._mount(kept, folder, here)
            await self.oci.call(
                "run",
                "--detach",
                "--preserve-fds=1",
                f"--bundle={folder}",
                f"--pid-file={folder / 'pid'}",
                spec.sandbox_id,
                inherit=listener.fileno(),
            )
        finally:
            listener.close()
            self._unmount(here)
        kept.pid = int((folder / "pid").read_text())
        if spec.internet and not missing_tools():
            await self.router.join(spec.sandbox_id, kept.pid)
            kept.number = self.router.number(spec.sandbox_id)
        self._write(spec.sandbox_id)

    def _write_config(self, spec: BoxSpec, kept: Kept, rootfs: Path) -> None:
        config = oci.config(
            sandbox_id=spec.sandbox_id,
            rootfs=rootfs,
            interpreter=MOUNTS / "python",
            binds=self.trees.binds(spec.template),
            mappings=self._mappings(kept.slot),
            shifted=self.shifted,
            cgroup=self._cgroup(spec.sandbox_id) if self.limited else None,
            limits=spec.limits,
            timeout_s=spec.timeout_s,
        )
        path = self.boxes / spec.sandbox_id / "config.json"
        path.write_text(json.dumps(config))

    def _cgroup(self, sandbox_id: str) -> str:
        return f"kode/{self.run.name}/{sandbox_id}"

    def _first_id(self, slot: int) -> int:
        return FIRST_ID + slot * oci.IDS_PER_SANDBOX

    def _mappings(self, slot: int) -> list[dict[str, int]]:
        """The ids inside by those here: a range of its own where we may choose."""
        if self.shifted:
            first, count = self._first_id(slot), oci.IDS_PER_SANDBOX
            return [{"containerID": 0, "hostID": first, "size": count}]
        return [
            {"containerID": 0, "hostID": 0, "size": 1},
            {"containerID": 1, "hostID": 1, "size": oci.IDS_PER_SANDBOX - 1},
        ]

    def _name(self, upper: Path, sandbox_id: str) -> None:
        """Write the files of /etc that differ from sandbox to sandbox."""
        (upper / "etc").mkdir()
        hosts = f"127.0.0.1 localhost {sandbox_id}\n::1 localhost ip6-localhost\n"
        (upper / "etc/hosts").write_text(hosts)
        (upper / "etc/hostname").write_text(f"{sandbox_id}\n")
        (upper / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")

    def _listen(self, sandbox_id: str) -> socket.socket:
        """The control socket, which PID 1 inherits and the server connects to."""
        path = self.run / "control" / sandbox_id
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        os.chown(path, self.owner, -1)
        path.chmod(0o600)
        listener.listen(8)
        return listener

    def _mount(self, kept: Kept, folder: Path, here: Path) -> None:
        """Put the sandbox's root file system together at `here`/root."""
        here.mkdir()
        for name in ("lower", "files", "root"):
            (here / name).mkdir()
        lower, files, options = self.trees.path(kept.template), folder / "files", ""
        if self.shifted:
            namespace = self._namespace(kept.slot)
            syscalls.mount_idmapped(lower, here / "lower", namespace)
            syscalls.mount_idmapped(files, here / "files", namespace)
            lower, files = here / "lower", here / "files"
        else:
            options = ",userxattr"
        owner = self._first_id(kept.slot) if self.shifted else 0
        data = (
            f"lowerdir={lower},upperdir={files}/upper,workdir={files}/work,"
            f"index=off,xino=off{options}"
        )
        with syscalls.file_ids(owner, owner) if owner else contextlib.nullcontext():
            syscalls.mount("overlay", here / "root", "overlay", 0, data)

    def _unmount(self, here: Path) -> None:
        """The container keeps its own copy; here nothing is left to unmount."""
        for name in ("root", "files", "lower"):
            with contextlib.suppress(OSError):
                syscalls.unmount(here / name)
        shutil.rmtree(here, ignore_errors=True)

    def _namespace(self, slot: int) -> int:
        if slot not in self._namespaces:
            first, count = self._first_id(slot), oci.IDS_PER_SANDBOX
            self._namespaces[slot] = syscalls.user_namespace(first, count)
        return self._namespaces[slot]

    async def kill(self, sandbox_id: str) -> None:
        """End it and remove every trace; idempotent."""
        with contextlib.suppress(OSError):
            await self.oci.call("delete", "--force", sandbox_id)
        await self.router.leave(sandbox_id)
        if self.limited:
            cgroups.remove(self._cgroup(sandbox_id))
        (self.run / "control" / sandbox_id).unlink(missing_ok=True)
        await asyncio.to_thread(
            shutil.rmtree, self.boxes / sandbox_id, ignore_errors=True
        )
        self.found.pop(sandbox_id, None)

    async def pause(self, sandbox_id: str) -> bool:
        """Freeze it; False where this machine has no freezer for us."""
        if self.limited:
            await self.oci.call("pause", sandbox_id)
        return self.limited

    async def resume(self, sandbox_id: str) -> bool:
        """Thaw it; False as above."""
        if self.limited:
            await self.oci.call("resume", sandbox_id)
        return self.limited

    async def set_internet(self, sandbox_id: str, allowed: bool) -> None:
        """Open or close its way out."""
        kept = self.found[sandbox_id]
        if allowed == (kept.number is not None):
            return
        if allowed:
            await self.router.join(sandbox_id, kept.pid)
        else:
            await self.router.leave(sandbox_id)
        kept.number = self.router.number(sandbox_id)
        self._write(sandbox_id)

    async def limit(self, sandbox_id: str, limits: Limits) -> None:
        """Change what it may use."""
        self.found[sandbox_id].limits = limits
        if self.limited:
            await self.oci.call(
                "update",
                f"--memory={limits.memory_mb << 20}",
                f"--cpu-quota={int(limits.cpus * 100_000)}",
                f"--pids-limit={limits.pids}",
                sandbox_id,
            )

    async def stats(self, sandbox_id: str) -> BoxStats:
        """What it uses now. The disk's figure is up to 20 s old."""
        kept = self.found[sandbox_id]
        cgroup = self._cgroup(sandbox_id)
        used, cache = cgroups.memory(cgroup)
        return BoxStats(
            cpu_used_s=cgroups.cpu_used_s(cgroup),
            memory_used=used,
            memory_total=kept.limits.memory_mb << 20,
            memory_cache=cache,
            disk_used=await self._disk_used(sandbox_id, kept),
            disk_total=kept.limits.disk_mb << 20,
            processes=cgroups.processes(cgroup),
        )

    async def _disk_used(self, sandbox_id: str, kept: Kept) -> int:
        now = asyncio.get_running_loop().time()
        if now - kept.disk[0] > DISK_AGE_S:
            process = await asyncio.create_subprocess_exec(
                "du",
                "-sx",
                "--block-size=1",
                str(self.boxes / sandbox_id / "files/upper"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                output, _ = await asyncio.wait_for(process.communicate(), DISK_LIMIT_S)
                kept.disk = (now, int(output.split()[0]))
            except (TimeoutError, IndexError):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                kept.disk = (now, kept.disk[1])
        return kept.disk[1]

    async def close(self) -> None:
        """Stop our own work; sandboxes live on, and the router with them."""
        await self.trees.close()
        if self._ready and not self.found:
            self.router.stop()

    def _read(self, sandbox_id: str) -> Kept | None:
        try:
            data = json.loads((self.boxes / sandbox_id / "box.json").read_text())
            return Kept(**{**data, "limits": Limits(**data["limits"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _write(self, sandbox_id: str) -> None:
        data: dict[str, Any] = asdict(self.found[sandbox_id])
        del data["disk"]
        draft = self.boxes / sandbox_id / "box.json.new"
        draft.write_text(json.dumps(data))
        draft.rename(draft.with_suffix(""))
