"""Removes trees that somebody hostile made: of any depth, size and with any names."""

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
