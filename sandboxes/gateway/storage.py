"""Files of a machine. Whatever comes from inside is hostile: counted, and cut."""

import contextlib
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import calling
from .boxes import box, open_box
from .prompt import promptly

if TYPE_CHECKING:
    import e2b

# A stream that gives nothing for so long is given up.
IDLE_S = 20.0
UPLOAD_S = 300.0


def download(sandbox: Sandbox, path: str) -> Iterator[bytes]:
    """A file's bytes in pieces; stopping early reads no further."""
    with calling(sandbox.backend):
        files = box(sandbox).files
        reading = promptly(
            lambda: files.read(path, format="stream"), undo=lambda late: late.close()
        )
        with reading as pieces:
            yield from pieces


def upload(sandbox: Sandbox, path: str, content: IO[bytes]) -> None:
    """Write a file from an open one, making the folders above it."""
    with calling(sandbox.backend):
        files = box(sandbox).files
        # The SDK lets it take for ever.
        promptly(lambda: files.write(path, content), patience_s=UPLOAD_S)


def names(sandbox: Sandbox, path: str) -> list[str]:
    """What a folder holds, by the backend's own call. Raises NotFound."""
    with calling(sandbox.backend):
        files = box(sandbox).files
        return sorted(entry.name for entry in promptly(lambda: files.list(path)))


def make_dir(sandbox: Sandbox, path: str) -> bool:
    """Make a folder and those above; False when it is there."""
    with calling(sandbox.backend):
        files = box(sandbox).files
        return promptly(lambda: files.make_dir(path))


def move(sandbox: Sandbox, old: str, new: str) -> None:
    """Rename or move. Raises NotFound."""
    with calling(sandbox.backend):
        files = box(sandbox).files
        promptly(lambda: files.rename(old, new))


def remove(sandbox: Sandbox, path: str) -> None:
    """Delete a file or a folder with all it holds."""
    with calling(sandbox.backend):
        files = box(sandbox).files
        promptly(lambda: files.remove(path))


async def read_file(sandbox: Sandbox, path: str, *, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of a file. Raises NotFound."""
    kept = bytearray()
    with calling(sandbox.backend):
        connected = await open_box(sandbox)
        reading = connected.files.read(
            path, format="stream", stream_idle_timeout=IDLE_S
        )
        async with await reading as pieces:
            async for piece in pieces:
                kept += piece
                if len(kept) >= limit_bytes:
                    break
    return bytes(kept[:limit_bytes])


async def write_file(sandbox: Sandbox, path: str, data: bytes) -> None:
    """Write a whole file, making the folders above it."""
    if not path:
        raise errors.Invalid("A file needs a path.")
    with calling(sandbox.backend):
        connected = await open_box(sandbox)
        await connected.files.write(path, data)


class Watch:
    """A folder that is being watched."""

    def __init__(self, handle: "e2b.AsyncWatchHandle") -> None:
        self._handle = handle

    async def close(self) -> None:
        """Stop watching."""
        with contextlib.suppress(Exception):
            await self._handle.stop()  # type: ignore[no-untyped-call]


async def watch(
    sandbox: Sandbox,
    path: str,
    on_change: Callable[[str], None],
    on_end: Callable[[], None],
) -> Watch:
    """Hear the names of what changes in a folder. Raises NotFound, Invalid.

    `on_end` is called when it ends by itself, too.
    """
    with calling(sandbox.backend):
        connected = await open_box(sandbox)
        handle = await connected.files.watch_dir(
            path,
            on_event=lambda event: on_change(event.name),
            on_exit=lambda _error: on_end(),
            timeout=0,
        )
    return Watch(handle)
