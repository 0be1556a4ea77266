"""Makes, finds and removes sandboxes: crun does the isolation, this prepares it.

Runs in the launcher, the only process of the runtime with privileges. A sandbox
is a folder `boxes/<id>` (its files and `box.json`), a control socket, a cgroup
and a container of that id; nothing of it needs this process to live on.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from sandboxes.local.contract import (
    BaseTree,
    BoxGone,
    BoxSpec,
    BoxStats,
    IsolationUnavailable,
    Limits,
)

from . import (
    cgroups,
    folders,
    interpreter,
    mounts,
    oci,
    probe,
    removal,
    skeleton,
    syscalls,
    usage,
)
from .kept import Kept, Live
from .network import Router, missing_tools
from .oci_runtime import OciRuntime, end_of
from .snapshots import Snapshots
from .trees import Trees

PARALLEL_CREATES = 4
END_S = 10.0  # for a killed PID 1, which takes its whole PID namespace along
REMOVE_S = 1.0  # for its files; what takes longer goes on in the background
logger = logging.getLogger(__name__)


class Engine:
    """All sandboxes of one root folder. `owner` may use their control sockets."""

    def __init__(self, root: Path, owner: int) -> None:
        self.root, self.owner = root, owner
        self.run = folders.run_folder(root)
        self.boxes = mounts.STATE / "boxes"
        self.trees = Trees(root / "isolation" / "trees")
        self.router = Router(self.run / "router.json", mounts.STATE / "lock")
        self.live: dict[str, Live] = {}
        self.oci = OciRuntime(self.run / "oci", self.run / "oci.log")
        self.mounts = mounts.Mounts(shifted=probe.can_shift())
        self.limited = False
        self._first_slot = int(self.run.name[-12:], 16) if probe.is_root() else 0
        self._creating = asyncio.Semaphore(PARALLEL_CREATES)
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._stopped = threading.Event()
        self._trash = removal.Trash(mounts.STATE / "trash", self._stopped)
        layers = mounts.STATE / "snapshots"
        self.snapshots = Snapshots(layers, self._trash, self._stopped)
        self._python = ""
        self._lock: int | None = None
        self._changes: socket.socket | None = None

    async def start(self) -> list[str]:
        """Prepare folders, mounts and trees, sweep; ids of sandboxes that live.

        Raises IsolationUnavailable with the command that helps.
        """
        problem = probe.problem()
        if problem:
            raise IsolationUnavailable(problem)
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        self.mounts.start(self.root / "isolation")
        self._lock = await folders.only_one(mounts.STATE / "lock", self.root)
        folders.prepare(self.run)
        self.limited = self.oci.limited = cgroups.can_limit()
        self.boxes.mkdir(exist_ok=True, mode=0o700)
        self._trash.start()
        self.snapshots.start()
        self.trees.folder = mounts.STATE / "trees"
        self.trees.prepare()
        python = interpreter.build(mounts.STATE)
        self._python = python.name
        self.mounts.provide_python(python)
        self._changes = self.router.watch()
        return await self._sweep()

    def probe(self) -> Mapping[str, str]:
        """What this machine gives, one line each."""
        return probe.report()

    def base_trees(self) -> Sequence[BaseTree]:
        """The base trees and their state."""
        return self.trees.all()

    def build_base(self) -> None:
        """Begin to build `base` in the background."""
        self.trees.build_base()

    async def _sweep(self) -> list[str]:
        """Find what lives, remove what is left of all others."""
        containers = await self.oci.all()
        for sandbox_id in {p.name for p in self.boxes.iterdir()} | set(containers):
            kept = Kept.read(self.boxes / sandbox_id)
            state, pid = containers.get(sandbox_id, ("", 0))
            if kept and state in ("running", "paused"):
                self._adopt(sandbox_id, kept, pid, paused=state == "paused")
            else:
                await self.kill(sandbox_id)
        self._prune()
        kept_now = [live.kept for live in self.live.values()]
        used_trees = {kept.tree for kept in kept_now} | self.snapshots.trees()
        self.trees.prune(used_trees)
        used = {kept.python for kept in kept_now} | {self._python}
        interpreter.prune(mounts.STATE, used)
        await self._reconnect()
        return sorted(self.live)

    def _adopt(self, sandbox_id: str, kept: Kept, pid: int, *, paused: bool) -> None:
        kept.pid = pid
        live = self.live[sandbox_id] = Live(kept, os.pidfd_open(pid), paused)
        live.watch = asyncio.create_task(self._watch(sandbox_id, live))

    async def _reconnect(self) -> None:
        """Let the sandboxes that were online be it again."""
        numbers = {
            name: live.kept.number
            for name, live in self.live.items()
            if live.kept.number is not None
        }
        if not self.router.adopt(numbers):
            for name in numbers:
                await self._join(name)

    async def _join(self, sandbox_id: str) -> None:
        kept = self.live[sandbox_id].kept
        await self.router.join(sandbox_id, kept.pid)
        kept.number = self.router.number(sandbox_id)
        kept.write(self.boxes / sandbox_id)

    async def _watch(self, sandbox_id: str, live: Live) -> None:
        """Reap PID 1 when it ends by itself, and remove what is left."""
        try:
            await end_of(live.process)
            live.ended.set()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(live.kept.pid, os.WNOHANG)
            await self.kill(sandbox_id)
        except OSError as error:
            logger.warning("sandbox %s is not removed: %s", sandbox_id, error)
        finally:
            os.close(live.process)

    def _alive(self, sandbox_id: str) -> Live:
        """Raises BoxGone."""
        live = self.live.get(sandbox_id)
        if live is None or live.process < 0 or live.ended.is_set():
            raise BoxGone("The sandbox has ended.")
        return live

    async def state(self, sandbox_id: str) -> str:
        """`running`, `paused`, or empty when it is gone."""
        try:
            return "paused" if self._alive(sandbox_id).paused else "running"
        except BoxGone:
            return ""

    async def create(self, spec: BoxSpec) -> None:
        """Make a sandbox; when this returns its control socket takes connections."""
        async with self._creating:
            if spec.sandbox_id in self.live:
                raise OSError("There is a sandbox of this id already.")
            kept = Kept("", self._python, self._free_slot(), spec.limits)
            if spec.snapshot:
                kept.tree, kept.layers = self.snapshots.base(spec.snapshot)
            else:
                kept.tree = self.trees.current(spec.template)
            live = self.live[spec.sandbox_id] = Live(kept)
            try:
                await self._make(spec, live)
            except BaseException:
                await asyncio.shield(self.kill(spec.sandbox_id))
                raise

    def _free_slot(self) -> int:
        """Begins elsewhere for each root: runtimes beside each other do not share."""
        used = {live.kept.slot for live in self.live.values()}
        tried = ((self._first_slot + n) % mounts.SLOTS for n in range(mounts.SLOTS))
        return next(slot for slot in tried if slot not in used)

    async def _make(self, spec: BoxSpec, live: Live) -> None:
        sandbox_id, kept = spec.sandbox_id, live.kept
        folder = self.boxes / sandbox_id
        (folder / "files" / "upper").mkdir(parents=True)
        (folder / "files" / "work").mkdir()
        skeleton.name(folder / "files" / "upper", sandbox_id)
        self._write_config(spec, kept)
        listener = folders.listen(self.run / "control" / sandbox_id, self.owner)
        try:
            lowers = [*self.snapshots.paths(kept.layers), self.trees.path(kept.tree)]
            self.mounts.put(sandbox_id, lowers, folder / "files", kept.slot)
            await self.oci.call(
                "run",
                "--detach",
                "--preserve-fds=1",
                f"--bundle={folder}",
                f"--pid-file={folder / 'pid'}",
                sandbox_id,
                inherit=listener.fileno(),
            )
        finally:
            listener.close()
            self.mounts.take(sandbox_id)
        kept.pid = int((folder / "pid").read_text())
        live.process = os.pidfd_open(kept.pid)
        live.watch = asyncio.create_task(self._watch(sandbox_id, live))
        kept.write(folder)
        if spec.internet and not missing_tools():
            await self._join(sandbox_id)
        self._alive(sandbox_id)

    def _write_config(self, spec: BoxSpec, kept: Kept) -> None:
        config = oci.config(
            sandbox_id=spec.sandbox_id,
            rootfs=self.mounts.root(spec.sandbox_id),
            interpreter=mounts.PYTHON,
            boot_id=self.mounts.boot_id(spec.sandbox_id)
            if self.oci.covers_proc
            else None,
            binds=self.trees.binds(kept.tree),
            mappings=self.mounts.mappings(kept.slot),
            shifted=self.mounts.shifted,
            cgroup=self._cgroup(spec.sandbox_id) if self.limited else None,
            limits=spec.limits,
            timeout_s=spec.timeout_s,
        )
        path = self.boxes / spec.sandbox_id / "config.json"
        path.write_text(json.dumps(config))

    def _cgroup(self, sandbox_id: str) -> str:
        return f"kode/{self.run.name}/{sandbox_id}"

    async def kill(self, sandbox_id: str) -> None:
        """End it and remove every trace; idempotent.

        Raises OSError when something of it stays; then it can be tried again.
        """
        task = self._ending.get(sandbox_id)
        if task is None:
            task = asyncio.create_task(self._end(sandbox_id))
            self._ending[sandbox_id] = task
            task.add_done_callback(lambda _: self._ending.pop(sandbox_id, None))
        await asyncio.shield(task)

    async def _end(self, sandbox_id: str) -> None:
        live = self.live.get(sandbox_id)
        if live is not None and live.process >= 0:
            await self._end_processes(sandbox_id, live)
        with contextlib.suppress(OSError):
            await self.oci.call("delete", "--force", sandbox_id)
        await self.router.leave(sandbox_id)
        if self.limited:
            cgroups.remove(self._cgroup(sandbox_id))
        (self.run / "control" / sandbox_id).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            removing = self._trash.put(self.boxes / sandbox_id)
            await asyncio.wait([removing], timeout=REMOVE_S)
        ended = self.live.pop(sandbox_id, None)
        if ended is not None and ended.kept.layers:
            self._prune()

    async def _end_processes(self, sandbox_id: str, live: Live) -> None:
        """Kill PID 1: its end is the end of all that lives in its namespace."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(live.process, signal.SIGKILL)
        if live.paused and self.limited:
            # A frozen process takes no signal in version 1.
            with contextlib.suppress(OSError):
                await self.oci.call("resume", sandbox_id)
        try:
            async with asyncio.timeout(END_S):
                await live.ended.wait()
        except TimeoutError as error:
            raise OSError(f"Sandbox {sandbox_id} does not end.") from error

    def _prune(self) -> None:
        """Remove the layers that nothing needs any more."""
        layers = (live.kept.layers for live in self.live.values())
        self.snapshots.prune(set().union(*layers))

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> None:
        """Keep its files; all of them as of now if it stands still meanwhile."""
        live = self._alive(sandbox_id)
        upper = self.boxes / sandbox_id / "files" / "upper"
        check = partial(self._alive, sandbox_id)
        await self.snapshots.take(snapshot_id, upper, live.kept, check)

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Forget a snapshot; what stands on it lives on."""
        self.snapshots.remove(snapshot_id)
        self._prune()

    async def pause(self, sandbox_id: str) -> bool:
        """Freeze it; False where this machine has no freezer for us."""
        live = self._alive(sandbox_id)
        if self.limited and not live.paused:
            await self.oci.call("pause", sandbox_id)
            live.paused = True
            await self._frozen(sandbox_id)
        return self.limited

    async def _frozen(self, sandbox_id: str) -> None:
        """Wait for it: the order to freeze comes back before it is carried out."""
        async with asyncio.timeout(END_S):
            while not cgroups.is_frozen(self._cgroup(sandbox_id)):
                await asyncio.sleep(0.005)

    async def resume(self, sandbox_id: str) -> bool:
        """Thaw it; False as above."""
        live = self._alive(sandbox_id)
        if self.limited and live.paused:
            await self.oci.call("resume", sandbox_id)
            live.paused = False
        return self.limited

    async def set_internet(self, sandbox_id: str, allowed: bool) -> None:
        """Open or close its way out."""
        kept = self._alive(sandbox_id).kept
        if allowed == (kept.number is not None):
            return
        if allowed:
            if missing := missing_tools():
                raise OSError(f"There is no network without {', '.join(missing)}.")
            await self._join(sandbox_id)
        else:
            await self.router.leave(sandbox_id)
            kept.number = None
            kept.write(self.boxes / sandbox_id)

    async def limit(self, sandbox_id: str, limits: Limits) -> None:
        """Change what it may use."""
        live = self._alive(sandbox_id)
        if self.limited:
            await self.oci.call(
                "update",
                f"--memory={limits.memory_mb << 20}",
                f"--cpu-quota={int(limits.cpus * 100_000)}",
                f"--pids-limit={limits.pids}",
                sandbox_id,
            )
        live.kept.limits = limits
        live.kept.write(self.boxes / sandbox_id)

    async def stats(self, sandbox_id: str) -> BoxStats:
        """What it uses now. The disk's figure is up to 20 s old."""
        live = self._alive(sandbox_id)
        limits = live.kept.limits
        if self.limited:
            now = usage.of_cgroup(self._cgroup(sandbox_id))
        else:
            now = usage.of_namespace(live.kept.pid)
        return BoxStats(
            cpu_used_s=now.cpu_s,
            memory_used=now.memory,
            memory_total=limits.memory_mb << 20,
            memory_cache=now.cache,
            disk_used=await live.disk.measure(self.boxes / sandbox_id / "files/upper"),
            disk_total=limits.disk_mb << 20,
            processes=now.processes,
        )

    async def close(self) -> None:
        """Stop our own work; sandboxes live on, and the router with them."""
        await self.trees.close()
        await asyncio.gather(*self._ending.values(), return_exceptions=True)
        await self._trash.settle(REMOVE_S)
        self._stopped.set()
        if self._changes is None:
            return
        asyncio.get_running_loop().remove_reader(self._changes)
        self._changes.close()
        if not self.live:
            self.router.stop()
            cgroups.remove(f"kode/{self.run.name}")
            shutil.rmtree(self.run, ignore_errors=True)
