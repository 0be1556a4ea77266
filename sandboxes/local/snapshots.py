"""Snapshots of sandboxes, and forks: new sandboxes with the files of another.

Files alone are kept: what runs in a sandbox does not come along.
"""

import asyncio
import logging
import re
import secrets
import time
from dataclasses import replace

from .contract import IsolationUnavailable
from .records import NAMESPACE, Record, Snapshot, State, new_id
from .registry import DEFAULT_TEMPLATE, OFFLINE_TREE, Registry
from .sandbox import Conflict, Sandbox

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}", re.ASCII)
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
DEFAULT_TAG = "default"
RESERVED = {DEFAULT_TEMPLATE, OFFLINE_TREE}


class BadName(ValueError):
    """Not a name that a snapshot can have; the text tells why."""


class Snapshots:
    """All snapshots; those that the launcher keeps and we have a record of."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[str, Snapshot] = {}

    async def start(self) -> None:
        """Find those of the run before; forget halves that a crash left."""
        store, driver = self._registry.store, self._registry.driver
        try:
            kept = set(await driver.snapshots())
        except IsolationUnavailable:
            return  # the registry has logged why
        for record in store.load_snapshots():
            if record.snapshot_id in kept:
                self._found[record.snapshot_id] = record
            else:
                logger.warning("the files of snapshot %s are lost", record.public_id)
                store.remove_snapshot(record.snapshot_id)
        records = (sandbox.record for sandbox in self._registry.all())
        cold = {record.cold for record in records}
        for snapshot_id in kept - set(self._found) - cold:
            await driver.remove_snapshot(snapshot_id)

    @property
    def max_running(self) -> int:
        """How many sandboxes may run; a fork may meet that."""
        return self._registry.max_running

    def all(self) -> list[Snapshot]:
        """Every snapshot, the newest first."""
        found = [(one.made_at, one.snapshot_id) for one in self._found.values()]
        return [self._found[snapshot_id] for _, snapshot_id in sorted(found)[::-1]]

    def find(self, reference: str) -> Snapshot:
        """By id or name, with or without a tag. Raises LookupError."""
        name, tag = split_reference(reference)
        for snapshot in self._found.values():
            if snapshot.tag == tag and name in (snapshot.name, snapshot.snapshot_id):
                return snapshot
        raise LookupError(reference)

    async def take(self, sandbox_id: str, reference: str | None) -> Snapshot:
        """Keep the files of a sandbox; one of the same name and tag is replaced.

        Raises BadName, NotFound, Conflict, OSError and BoxGone.
        """
        name, tag = "", DEFAULT_TAG
        if reference is not None:
            name, tag = checked_reference(reference)
        sandbox = self._registry.get(sandbox_id)
        async with sandbox.held(self._registry.store):
            snapshot = replace(await self._copy(sandbox), name=name, tag=tag)
        same = [s for s in self._found.values() if name and s.names == snapshot.names]
        self._registry.store.save_snapshot(snapshot)
        self._found[snapshot.snapshot_id] = snapshot
        for old in same:
            await self.remove(old)
        return snapshot

    async def remove(self, snapshot: Snapshot) -> None:
        """Forget one; sandboxes made from it live on."""
        self._found.pop(snapshot.snapshot_id, None)
        await self._registry.driver.remove_snapshot(snapshot.snapshot_id)
        self._registry.store.remove_snapshot(snapshot.snapshot_id)

    async def fork(
        self, sandbox_id: str, count: int, timeout_s: float
    ) -> list[Sandbox | BaseException]:
        """Sandboxes like another, with its files; each may fail by itself.

        Raises Conflict for a paused one, and what `take` raises.
        """
        source = self._registry.get(sandbox_id)
        async with source.held(self._registry.store):
            if source.record.state is State.PAUSED:
                raise Conflict(f"Sandbox {sandbox_id} is paused; resume it first")
            layer = (await self._copy(source)).snapshot_id
        try:
            drafts = [fork_of(source.record, layer, timeout_s) for _ in range(count)]
            creating = (self._registry.create(draft) for draft in drafts)
            return await asyncio.gather(*creating, return_exceptions=True)
        finally:
            await self._registry.driver.remove_snapshot(layer)

    async def _copy(self, sandbox: Sandbox) -> Snapshot:
        record = sandbox.record
        if record.cold:
            text = f"Sandbox {record.sandbox_id} is paused without memory"
            raise Conflict(f"{text}; resume it first")
        snapshot_id = new_id("s")
        await sandbox.box.snapshot(snapshot_id)
        sandbox.log.add("Snapshot taken")
        return Snapshot(snapshot_id, record.sandbox_id, record.base_tree, time.time())


def fork_of(source: Record, layer: str, timeout_s: float) -> Record:
    """A sandbox as its source was asked for, with tokens of its own."""
    return replace(
        source,
        sandbox_id="",
        timeout_s=timeout_s,
        state=State.RUNNING,
        envd_token=source.envd_token and secrets.token_hex(32),
        traffic_token=source.traffic_token and secrets.token_hex(32),
        idempotency_key=None,
        snapshot=layer,
        held=False,
        metadata=dict(source.metadata),
        env=dict(source.env),
        network=dict(source.network),
    )


def split_reference(reference: str) -> tuple[str, str]:
    """Name or id, and tag; `local/` before it says nothing."""
    name, _, tag = reference.removeprefix(f"{NAMESPACE}/").partition(":")
    return name, tag or DEFAULT_TAG


def checked_reference(reference: str) -> tuple[str, str]:
    """Name and tag for a new snapshot. Raises BadName."""
    name, tag = split_reference(reference.lower())
    if not NAME.fullmatch(name) or not TAG.fullmatch(tag):
        raise BadName(
            f"invalid snapshot name '{reference}': up to 128 letters, digits, - and _, "
            "then a colon and a tag if wanted"
        )
    if name in RESERVED:
        raise BadName(f"'{name}' is the name of a template; choose another")
    return name, tag
