"""Removes trees that somebody hostile made: of any depth, size and with any names."""

import asyncio
import contextlib
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Trash:
    """Where folders go at once that take a while to remove.

    What is left when `stopped` is set goes at the next start.
    """

    def __init__(self, folder: Path, stopped: threading.Event) -> None:
        self._folder, self._stopped = folder, stopped
        self._removing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Go on with what the run before left."""
        self._folder.mkdir(exist_ok=True, mode=0o700)
        for leftover in self._folder.iterdir():
            self._remove(leftover)

    def put(self, folder: Path) -> asyncio.Task[None]:
        """Take a folder; it is removed when the task is done."""
        goal = self._folder / f"{folder.name}.{os.urandom(4).hex()}"
        return self._remove(folder.rename(goal))

    async def settle(self, timeout_s: float) -> None:
        """Wait that long for what is being removed."""
        if self._removing:
            await asyncio.wait(self._removing, timeout=timeout_s)

    def _remove(self, folder: Path) -> asyncio.Task[None]:
        task = asyncio.create_task(self._removed(folder))
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)
        return task

    async def _removed(self, folder: Path) -> None:
        try:
            await asyncio.to_thread(remove, folder, self._stopped)
        except OSError as error:
            logger.warning("files of a sandbox stay in %s: %s", folder, error)


def remove(folder: Path, stopped: threading.Event) -> None:
    """Remove a folder; not to its end once `stopped` is set.

    Each folder below is first moved to the top: the time grows with the number of
    files alone, where following a path of depth n takes n steps for every file. No
    link is followed. Raises OSError.
    """
    top = os.open(folder, _DIRECTORY)
    token = os.urandom(8).hex()  # no name that is there already
    names = (f"{token}-{number}" for number in itertools.count())
    try:
        _empty(top, top, names)
        while (found := os.listdir(top)) and not stopped.is_set():
            for name in found:
                inner = os.open(name, _DIRECTORY, dir_fd=top)
                try:
                    _empty(inner, top, names)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
                if stopped.is_set():
                    return
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        if not stopped.is_set():
            folder.rmdir()


def _empty(directory: int, top: int, names: Iterator[str]) -> None:
    """Unlink the files of a directory and move its directories to `top`."""
    with os.scandir(directory) as entries:
        for entry in list(entries):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
            elif directory != top:
                os.rename(entry.name, next(names), src_dir_fd=directory, dst_dir_fd=top)
