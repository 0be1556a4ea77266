"""Sandboxes made before anybody asks, so that a create takes milliseconds.

A tree gets its spares after its first use, and keeps them while it is used: a spare
that nobody takes is ended by its own PID 1.
"""

import asyncio
import logging

from .contract import Box, BoxGone, BoxSpec, Driver, IsolationUnavailable, Limits
from .records import new_id

logger = logging.getLogger(__name__)

SPARE_LIFE_S = 900.0
CALM_S = 0.3  # after a create, for its first command to have the processor


class Pool:
    """Up to `size` spares of each tree in use; they have their final ids."""

    def __init__(self, driver: Driver, limits: Limits, size: int) -> None:
        self._driver, self._limits, self._size = driver, limits, size
        self._spares: dict[str, list[Box]] = {}
        self._filling: dict[str, asyncio.Task[None]] = {}
        self._making: set[asyncio.Task[bool]] = set()

    async def take(self, tree: str, timeout_s: float) -> Box | None:
        """A spare that lives `timeout_s` from now; None when there is none."""
        spares = self._spares.setdefault(tree, [])
        self._refill(tree)
        while spares:
            box = spares.pop()
            try:
                await box.set_deadline(timeout_s)
            except (BoxGone, OSError):
                continue
            return box
        return None

    async def close(self) -> None:
        """End the spares."""
        for task in self._filling.values():
            task.cancel()
        tasks = (*self._filling.values(), *self._making)
        await asyncio.gather(*tasks, return_exceptions=True)
        spares = [box for boxes in self._spares.values() for box in boxes]
        self._spares.clear()
        killing = (box.kill() for box in spares)
        await asyncio.gather(*killing, return_exceptions=True)

    def _refill(self, tree: str) -> None:
        """Begin to refill when it has been calm; a create starts the wait again."""
        waiting = self._filling.pop(tree, None)
        if waiting is not None and not waiting.done():
            waiting.cancel()
        if self._size:
            self._filling[tree] = asyncio.create_task(self._fill(tree))

    async def _fill(self, tree: str) -> None:
        await asyncio.sleep(CALM_S)
        while len(self._spares[tree]) < self._size:
            making = asyncio.create_task(self._make(tree))
            self._making.add(making)
            making.add_done_callback(self._making.discard)
            if not await asyncio.shield(making):  # made to its end if we are not
                return

    async def _make(self, tree: str) -> bool:
        spec = BoxSpec(new_id(), tree, SPARE_LIFE_S, limits=self._limits)
        try:
            box = await self._driver.create(spec)
        except (OSError, BoxGone, IsolationUnavailable) as problem:
            logger.warning("no spare of %s: %s", tree, problem)
            return False
        self._spares[tree].append(box)
        return True
