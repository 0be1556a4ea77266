"""A sandbox's files as pages show them: bounded, and never trusted."""

import posixpath
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from . import gateway
from .errors import Invalid, TooLarge
from .models import Sandbox

HOME = "/home/user"
# What one page lists. More is cut, and said.
MAX_ENTRIES = 5_000
# What one page shows of a file. More can be downloaded.
MAX_VIEW_BYTES = 2 << 20
MAX_DOWNLOAD_BYTES = 10 << 30
MAX_PATH = 4096
ARCHIVE_TIMEOUT_S = 3600


@dataclass(frozen=True)
class FileEntry:
    """A file or folder of a sandbox. `name` may hold anything but / and NUL."""

    name: str
    path: str
    is_dir: bool
    is_link: bool
    size_bytes: int
    modified_at: datetime | None


def clean(sandbox: Sandbox, path: str) -> str:
    """An absolute path without dots; relative ones start at the working folder.

    Raises Invalid. What a path means is decided inside the sandbox, where a link
    cannot lead out.
    """
    if "\0" in path or len(path.encode(errors="surrogatepass")) > MAX_PATH:
        raise Invalid("This is not a path.")
    return posixpath.normpath(posixpath.join(sandbox.workdir or HOME, path))


def list_dir(sandbox: Sandbox, path: str) -> tuple[list[FileEntry], bool]:
    """What a folder holds, folders first, and whether that is not all of it.

    Raises NotFound, Invalid for a file.
    """
    found = gateway.entries(sandbox, clean(sandbox, path))
    entries = [_entry(item) for item in found[:MAX_ENTRIES]]
    entries.sort(key=lambda entry: (not entry.is_dir, entry.name.lower()))
    return entries, len(found) > MAX_ENTRIES


def stat(sandbox: Sandbox, path: str) -> FileEntry:
    """One file or folder. Raises NotFound."""
    return _entry(gateway.entry(sandbox, clean(sandbox, path)))


def open_file(sandbox: Sandbox, path: str) -> tuple[FileEntry, Iterator[bytes]]:
    """A file and its bytes in pieces. Raises NotFound, Invalid for a folder."""
    entry = stat(sandbox, path)
    if entry.is_dir:
        raise Invalid("This is a folder. Download it as an archive.")
    return entry, _capped(gateway.download(sandbox, entry.path))


def read(sandbox: Sandbox, path: str, limit_bytes: int = MAX_VIEW_BYTES) -> bytes:
    """The first bytes of a file."""
    kept = b""
    _, pieces = open_file(sandbox, path)
    for piece in pieces:
        kept += piece
        if len(kept) >= limit_bytes:
            break
    return kept[:limit_bytes]


def archive(sandbox: Sandbox, path: str) -> Iterator[bytes]:
    """A folder as a .tar.gz, packed inside the sandbox as it is read."""
    where = clean(sandbox, path)
    parent, name = posixpath.split(where)
    # A file that changes or cannot be read must not spoil the rest.
    command = (
        f"tar --create --gzip --ignore-failed-read --warning=no-file-changed "
        f"--directory={shlex.quote(parent or '/')} -- {shlex.quote(name or '.')} "
        "2>/dev/null || [ $? -eq 1 ]"
    )
    return gateway.stream(sandbox, command, timeout_s=ARCHIVE_TIMEOUT_S)


def _capped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, until a file without end has given enough."""
    left = MAX_DOWNLOAD_BYTES
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise TooLarge("This file is larger than a download may be.")
        yield piece


def _entry(item: object) -> FileEntry:
    kind = getattr(item, "type", None)
    return FileEntry(
        name=str(getattr(item, "name", "")),
        path=str(getattr(item, "path", "")),
        is_dir=getattr(kind, "value", kind) == "dir",
        is_link=bool(getattr(item, "symlink_target", None)),
        size_bytes=int(getattr(item, "size", 0) or 0),
        modified_at=getattr(item, "modified_time", None),
    )
