"""Tasks in the background, whose failures are logged."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


def spawn(
    work: Coroutine[Any, Any, None], tasks: "set[asyncio.Task[None]]"
) -> "asyncio.Task[None]":
    """Begin `work` and keep it among `tasks` until it is done."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(log_failure)
    return task


def log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (problem := task.exception()):
        logger.error("a task failed", exc_info=problem)
