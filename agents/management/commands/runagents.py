"""Run agents' turns, and keep sandboxes in step with their backend."""

import asyncio
import logging
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sandboxes import reaper

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """Claims queued turns until it is told to stop (SIGTERM, SIGINT)."""

    help = __doc__ or ""
    # They import every page; a worker serves none.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take how many turns to run at once, and whether to reap."""
        parser.add_argument("--at-once", type=int, default=40)
        parser.add_argument("--no-reaper", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        """Work, with the reaper beside it."""
        ending = threading.Event()
        if not options["no_reaper"]:
            reap = reaper.run_forever
            threading.Thread(target=reap, args=(ending.is_set,), daemon=True).start()
        try:
            asyncio.run(_work(options["at_once"]))
        finally:
            ending.set()


async def _work(at_once: int) -> None:
    # The model library takes seconds to import; other commands do without.
    from agents.worker import Worker

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    worker = Worker(at_once)
    logger.info("runs agents as %s", worker.name)
    await worker.work(stopping)
