"""Runs the reaper: once, or for ever beside the web process."""

import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from sandboxes import reaper


class Command(BaseCommand):
    help = "Bring sandboxes and their backends in step."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true")
        parser.add_argument("--every", type=float, default=5.0, help="seconds")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["once"]:
            reaper.run_once()
            return
        stop = threading.Event()
        try:
            reaper.run_forever(stop.is_set, options["every"])
        except KeyboardInterrupt:
            stop.set()
