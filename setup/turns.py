"""Taking turns: two set-ups at once must not break each other."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def turn(lock: Path) -> Iterator[None]:
    """Hold the file's lock for the block, waiting for whoever holds it now.

    The kernel frees it when the holder ends, however it ends.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
