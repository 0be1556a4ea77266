"""The sandboxes of this runtime: made, found again, paused, resumed, ended.

A deadline is kept here and, in case the runtime is gone, by the sandbox's PID 1 a
little later. Changes of one sandbox wait for each other; its record is written
before the answer goes out.
"""

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial
from typing import Any

from .accounts import Accounts
from .contract import Box, BoxGone, BoxSpec, Driver, IsolationUnavailable, Limits
from .metrics import SAMPLE_S
from .pool import Pool
from .records import UNWATCHED_S, Record, State, Store, new_id
from .sandbox import Conflict, NoBox, NotFound, Sandbox, TooLong, TooMany
from .tasks import spawn

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "base"
OFFLINE_TREE = "host"
MAX_TIMEOUT_S = 24 * 3600.0
RETRY_S = 5.0
MEASURE_S = 2.0  # for one sample


class Registry:
    """All sandboxes, by id."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        *,
        limits: Limits,
        max_running: int,
        spares: int,
    ) -> None:
        self.driver, self.store = driver, store
        self.limits, self.max_running = limits, max_running
        self._sandboxes: dict[str, Sandbox] = {}
        self._pool = Pool(driver, limits, spares)
        self._creating = 0
        self._by_key: dict[str, asyncio.Future[Sandbox]] = {}
        self._accounts = Accounts()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost: list[str] = []

    async def start(self) -> None:
        """Find the sandboxes of the run before; what cannot be found is lost.

        Where nothing can be isolated, every later call tells why.
        """
        try:
            survivors = set(await self.driver.survivors())
        except IsolationUnavailable as problem:
            logger.error("no sandboxes on this machine: %s", problem)
            return
        records = {record.sandbox_id: record for record in self.store.load()}
        for sandbox_id in survivors:
            # What lives of a cold one is older than its files.
            if sandbox_id not in records or records[sandbox_id].cold:
                await (await self.driver.attach(sandbox_id)).kill()
        for sandbox_id, record in records.items():
            if record.cold or sandbox_id in survivors:
                await self._find_again(record)
            else:
                self._lose(record)
        spawn(self._sample_all(), self._tasks)

    async def close(self) -> None:
        """Let go of every sandbox; they live on until found or overdue."""
        await self._pool.close()
        for sandbox in self._sandboxes.values():
            self._release(sandbox)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def all(self) -> list[Sandbox]:
        """Every sandbox that is not being ended."""
        return [one for one in self._sandboxes.values() if not one.ending]

    def get(self, sandbox_id: str) -> Sandbox:
        """By id; `<id>-<client id>` is accepted too. Raises NotFound."""
        sandbox = self._sandboxes.get(sandbox_id.partition("-")[0])
        if sandbox is None or sandbox.ending:
            raise NotFound(sandbox_id)
        return sandbox

    async def create(self, draft: Record) -> Sandbox:
        """Make a sandbox as drafted; an idempotency key in use gives its sandbox.

        Raises TooMany, and what `Driver.create` raises.
        """
        key = draft.idempotency_key
        if key is None:
            return await self._create(draft)
        if key not in self._by_key:
            self._by_key[key] = asyncio.ensure_future(self._create(draft))
            self._by_key[key].add_done_callback(partial(self._forget_failed, key))
        return await asyncio.shield(self._by_key[key])

    async def connect(
        self, sandbox_id: str, timeout_s: float, *, memory: bool = True
    ) -> tuple[Sandbox, bool]:
        """Resume if paused, else only ever extend; True when it was resumed.

        Without `memory` what ran in a paused one ends, and it boots. Raises
        NotFound, and Conflict for a sandbox that is being ended.
        """
        sandbox = self._sandboxes.get(sandbox_id.partition("-")[0])
        if sandbox is None:
            raise NotFound(sandbox_id)
        async with sandbox.lock:
            sandbox.must_live()
            if sandbox.record.state is State.PAUSED:
                if not memory:
                    await self._cool(sandbox)
                await self._resume(sandbox, timeout_s)
                return sandbox, True
            end_at = time.time() + timeout_s
            if end_at > sandbox.record.end_at:
                await self._set_end(sandbox, end_at, timeout_s)
            return sandbox, False

    async def resume(self, sandbox_id: str, timeout_s: float) -> Sandbox:
        """Raises Conflict when it already runs."""
        sandbox = self.get(sandbox_id)
        async with sandbox.lock:
            sandbox.must_live()
            if sandbox.record.state is not State.PAUSED:
                raise Conflict(f"Sandbox {sandbox_id} is already running")
            await self._resume(sandbox, timeout_s)
            return sandbox

    async def set_timeout(self, sandbox_id: str, timeout_s: float) -> None:
        """Live this long from now. Raises NotFound when paused, TooLong."""
        sandbox = self.get(sandbox_id)
        async with sandbox.lock:
            if not sandbox.running:
                raise NotFound(sandbox_id)
            end_at = time.time() + max(timeout_s, 0.0)
            if end_at > sandbox.record.started_at + MAX_TIMEOUT_S:
                raise TooLong
            await self._set_end(sandbox, end_at, max(timeout_s, 0.0))

    async def pause(self, sandbox_id: str, *, memory: bool = True) -> None:
        """Freeze it, or without `memory` keep its files alone.

        Raises Conflict when it is paused already, and what Box.snapshot raises.
        """
        sandbox = self.get(sandbox_id)
        async with sandbox.lock:
            sandbox.must_live()
            if sandbox.record.state is State.PAUSED:
                raise Conflict(f"sandbox '{sandbox_id}' is already paused")
            await self._pause(sandbox, memory=memory)

    async def kill(self, sandbox_id: str) -> None:
        """End it and forget it. Raises NotFound when it is being ended already."""
        sandbox = self.get(sandbox_id)
        sandbox.ending = True
        async with sandbox.lock:
            await self._end(sandbox)

    async def set_network(
        self, sandbox_id: str, internet: bool, network: dict[str, Any]
    ) -> None:
        sandbox = self.get(sandbox_id)
        async with sandbox.lock:
            if not sandbox.running:
                raise NotFound(sandbox_id)
            await sandbox.box.set_internet(internet)
            sandbox.record.internet, sandbox.record.network = internet, network
            self.store.save(sandbox.record)

    async def sample(self, sandbox: Sandbox) -> None:
        """Measure now, unless that was done within the last second."""
        now = time.time()
        if sandbox.running and now - sandbox.samples.last_s >= 1.0:
            try:
                async with asyncio.timeout(MEASURE_S):
                    sandbox.samples.add(await sandbox.box.stats(), now)
            except (BoxGone, OSError) as problem:
                logger.info("no metrics of %s: %s", sandbox.record.sandbox_id, problem)

    async def base_tree(self, template: str) -> str:
        """The tree that serves a template now. Raises LookupError when unknown."""
        trees = {tree.name: tree for tree in await self.driver.base_trees()}
        if template not in trees and template != DEFAULT_TEMPLATE:
            raise LookupError(template)
        if template in trees and trees[template].state == "ready":
            return template
        return OFFLINE_TREE

    async def _create(self, draft: Record) -> Sandbox:
        running = sum(sandbox.running for sandbox in self._sandboxes.values())
        if running + self._creating >= self.max_running:
            raise TooMany
        self._creating += 1
        try:
            box = await self._box(draft)
        finally:
            self._creating -= 1
        now = time.time()
        record = replace(
            draft,
            sandbox_id=box.sandbox_id,
            started_at=now,
            end_at=now + draft.timeout_s,
            cpus=self.limits.cpus,
            memory_mb=self.limits.memory_mb,
            disk_mb=self.limits.disk_mb,
        )
        self.store.save(record)
        sandbox = self._adopt(record, box)
        sandbox.log.add("Sandbox started")
        if not self._accounts.give(sandbox):
            spawn(self._accounts.learn(sandbox), self._tasks)
        return sandbox

    async def _box(self, draft: Record) -> Box:
        """A box for a new sandbox: a spare one where it fits, else a new one."""
        timeout_s = draft.inner_limit_s(draft.timeout_s)
        if draft.internet and not draft.snapshot:
            spare = await self._pool.take(draft.base_tree, timeout_s)
            if spare is not None:
                return spare
        spec = self._spec(draft, timeout_s, draft.snapshot)
        return await self.driver.create(replace(spec, sandbox_id=new_id()))

    def _spec(self, record: Record, timeout_s: float, snapshot: str) -> BoxSpec:
        return BoxSpec(
            sandbox_id=record.sandbox_id,
            template=record.base_tree,
            timeout_s=timeout_s,
            internet=record.internet,
            limits=self.limits,
            snapshot=snapshot,
        )

    def _adopt(self, record: Record, box: Box) -> Sandbox:
        sandbox = Sandbox.serving(record, box)
        self._sandboxes[record.sandbox_id] = sandbox
        if not record.cold:
            spawn(self._mourn(sandbox), sandbox.tasks)
        self._arm(sandbox)
        return sandbox

    async def _find_again(self, record: Record) -> None:
        box: Box = NoBox(record.sandbox_id)
        try:
            if not record.cold:
                box = await self.driver.attach(record.sandbox_id)
        except BoxGone:
            self._lose(record)
            return
        sandbox = self._adopt(record, box)
        if record.held:
            await sandbox.let_go(self.store)
        if record.idempotency_key:
            found = asyncio.get_running_loop().create_future()
            found.set_result(sandbox)
            self._by_key[record.idempotency_key] = found
        sandbox.log.add("Sandbox found again by a new runtime")

    def _lose(self, record: Record) -> None:
        logger.warning("sandbox %s of the run before is lost", record.sandbox_id)
        self.lost.append(record.sandbox_id)
        self.store.remove(record.sandbox_id)

    async def _resume(self, sandbox: Sandbox, timeout_s: float) -> None:
        record = sandbox.record
        if layer := record.cold:
            spec = self._spec(record, record.inner_limit_s(timeout_s), layer)
            sandbox.serve(await self.driver.create(spec))
            spawn(self._mourn(sandbox), sandbox.tasks)
            record.cold = ""
        else:
            await sandbox.box.resume()
        record.state = State.RUNNING
        sandbox.log.add("Sandbox resumed")
        await self._set_end(sandbox, time.time() + timeout_s, timeout_s)
        if layer:
            await self.driver.remove_snapshot(layer)

    async def _pause(self, sandbox: Sandbox, *, memory: bool) -> None:
        record = sandbox.record
        await sandbox.box.set_deadline(UNWATCHED_S)
        await sandbox.box.pause()
        self._disarm(sandbox)
        record.state = State.PAUSED
        record.end_at = time.time()
        record.paused_whole = True
        sandbox.log.add("Sandbox paused")
        self.store.save(record)
        if not memory:
            await self._cool(sandbox)

    async def _cool(self, sandbox: Sandbox) -> None:
        """Of a paused sandbox, keep the files alone. It stays paused if that fails."""
        record = sandbox.record
        if record.cold:
            return
        layer = new_id("s")
        await sandbox.box.snapshot(layer)
        record.cold, record.paused_whole = layer, False
        self.store.save(record)
        self._release(sandbox)
        await sandbox.box.kill()

    async def _set_end(self, sandbox: Sandbox, end_at: float, timeout_s: float) -> None:
        await sandbox.box.set_deadline(sandbox.record.inner_limit_s(timeout_s))
        sandbox.record.end_at, sandbox.record.timeout_s = end_at, timeout_s
        self.store.save(sandbox.record)
        self._arm(sandbox)

    async def _end(self, sandbox: Sandbox) -> None:
        sandbox.ending = True
        self._release(sandbox)
        try:
            await sandbox.box.kill()
            if sandbox.record.cold:
                await self.driver.remove_snapshot(sandbox.record.cold)
        finally:
            self._forget(sandbox)

    def _forget(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        self._sandboxes.pop(record.sandbox_id, None)
        self.store.remove(record.sandbox_id)
        if record.idempotency_key:
            self._by_key.pop(record.idempotency_key, None)

    def _release(self, sandbox: Sandbox) -> None:
        self._disarm(sandbox)
        sandbox.services.close()
        for task in sandbox.tasks:
            task.cancel()

    def _arm(self, sandbox: Sandbox) -> None:
        self._disarm(sandbox)
        if sandbox.record.state is State.RUNNING:
            left = max(sandbox.record.end_at - time.time(), 0.0)
            loop = asyncio.get_running_loop()
            sandbox.timer = loop.call_later(left, self._expire, sandbox)

    def _disarm(self, sandbox: Sandbox) -> None:
        if sandbox.timer is not None:
            sandbox.timer.cancel()
            sandbox.timer = None

    def _expire(self, sandbox: Sandbox) -> None:
        spawn(self._expired(sandbox), self._tasks)

    async def _expired(self, sandbox: Sandbox) -> None:
        """End or pause a sandbox whose time is over, unless that was changed."""
        async with sandbox.lock:
            record = sandbox.record
            if not sandbox.running or record.end_at > time.time() + 0.01:
                return
            try:
                if record.auto_pause:
                    await self._pause(sandbox, memory=record.auto_pause_memory)
                else:
                    await self._end(sandbox)
            except (OSError, BoxGone) as problem:
                logger.error("end of %s: %s", record.sandbox_id, problem)
                loop = asyncio.get_running_loop()
                sandbox.timer = loop.call_later(RETRY_S, self._expire, sandbox)

    async def _mourn(self, sandbox: Sandbox) -> None:
        """Forget a sandbox that ended by itself."""
        await sandbox.box.gone()
        if not sandbox.ending:
            logger.warning("sandbox %s ended by itself", sandbox.record.sandbox_id)
            sandbox.ending = True
            sandbox.tasks.clear()
            await self._end(sandbox)

    async def _sample_all(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            for sandbox in self.all():
                await self.sample(sandbox)

    def _forget_failed(self, key: str, made: "asyncio.Future[Sandbox]") -> None:
        if made.cancelled() or made.exception() is not None:
            self._by_key.pop(key, None)
