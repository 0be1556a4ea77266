"""A sandbox's files as pages show them: bounded, and never trusted.

Folders are read by one `find` inside the sandbox, which stops after MAX_ENTRIES,
so that a folder of a million files costs what a page shows of it.
"""

import contextlib
import posixpath
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from . import gateway
from .errors import Invalid, NotFound, TimedOut, TooLarge
from .models import Sandbox

HOME = "/home/user"
# What one page lists. More is cut, and said.
MAX_ENTRIES = 5_000
# What one page shows of a file. More can be downloaded.
MAX_VIEW_BYTES = 2 << 20
VIEW_TIMEOUT_S = 20.0
MAX_DOWNLOAD_BYTES = 10 << 30
MAX_PATH = 4096
# MAX_ENTRIES of the longest names there can be.
MAX_LIST_BYTES = 4 << 20
# Own type, type of what a link leads to, size, time, mode, name; ended by NUL.
RECORD = r"'%y %Y %s %T@ %M %f\0'"


@dataclass(frozen=True)
class FileEntry:
    """A file or folder of a sandbox. `name` may hold anything but / and NUL.

    `is_dir` and `is_file` are of what a link leads to; a pipe or a device is
    neither. `mode` is written as `ls -l` does.
    """

    name: str
    path: str
    is_dir: bool
    is_file: bool
    is_link: bool
    size_bytes: int
    modified_at: datetime | None
    mode: str
    # Whether the name is UTF-8; one that is not has no address here.
    is_named: bool = True


def clean(sandbox: Sandbox, path: str) -> str:
    """An absolute path without dots; relative ones start at the working folder.

    Raises Invalid. What a path means is decided inside the sandbox, where a link
    cannot lead out.
    """
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError as error:
        raise Invalid("This is not a path.") from error
    if "\0" in path or size_bytes > MAX_PATH:
        raise Invalid("This is not a path.")
    return posixpath.normpath(posixpath.join(HOME, sandbox.workdir, path))


def list_dir(sandbox: Sandbox, path: str) -> tuple[list[FileEntry], bool]:
    """What a folder holds, folders first, and whether that is not all of it.

    Raises NotFound, Invalid for a file.
    """
    where = clean(sandbox, path)
    # The slash at the end follows a link to a folder.
    inside = shlex.quote(where.rstrip("/") + "/")
    found = _find(
        sandbox,
        f"{_itself(where)}; find {inside} -mindepth 1 -maxdepth 1 -printf {RECORD} "
        f"2>/dev/null | head -z -n {MAX_ENTRIES + 1}",
    )
    folder = _entry(next(found, b""), posixpath.dirname(where))
    if folder is None:
        raise NotFound("There is no such folder.")
    if not folder.is_dir:
        raise Invalid("This is not a folder.")
    entries = [entry for record in found if (entry := _entry(record, where))]
    is_cut = len(entries) > MAX_ENTRIES
    del entries[MAX_ENTRIES:]
    entries.sort(key=lambda entry: (not entry.is_dir, entry.name.lower()))
    return entries, is_cut


def stat(sandbox: Sandbox, path: str) -> FileEntry:
    """One file or folder. Raises NotFound."""
    where = clean(sandbox, path)
    entry = _entry(next(_find(sandbox, _itself(where)), b""), posixpath.dirname(where))
    if entry is None:
        raise NotFound("There is no such file.")
    return entry


def open_file(sandbox: Sandbox, path: str) -> tuple[FileEntry, Iterator[bytes]]:
    """A file and its bytes in pieces, at most MAX_DOWNLOAD_BYTES.

    Raises NotFound, Invalid for all but files: reading a pipe or a device may
    never end.
    """
    entry = stat(sandbox, path)
    if entry.is_dir:
        raise Invalid("This is a folder. Download it as an archive.")
    if not entry.is_file:
        raise Invalid("This is a pipe, a socket or a device, and cannot be read here.")
    return entry, capped(gateway.download(sandbox, entry.path))


def read(sandbox: Sandbox, path: str, limit_bytes: int = MAX_VIEW_BYTES) -> bytes:
    """The first bytes of a file. Raises TimedOut for one that comes too slowly."""
    kept = bytearray()
    deadline = time.monotonic() + VIEW_TIMEOUT_S
    _, pieces = open_file(sandbox, path)
    for piece in pieces:
        kept += piece
        if len(kept) >= limit_bytes:
            break
        if time.monotonic() > deadline:
            raise TimedOut("This file comes too slowly. Download it instead.")
    return bytes(kept[:limit_bytes])


def read_at(sandbox: Sandbox, path: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` of a file, fewer at its end."""
    entry = stat(sandbox, path)
    if not entry.is_file:
        raise Invalid("Only files can be read.")
    command = (
        f"dd if={shlex.quote(entry.path)} bs=64K skip={offset} count={size} "
        "iflag=skip_bytes,count_bytes status=none"
    )
    return b"".join(gateway.stream(sandbox, command, timeout_s=VIEW_TIMEOUT_S))


def _itself(where: str) -> str:
    """A command that prints the record of one path, nothing when it is not there."""
    return f"find {shlex.quote(where)} -maxdepth 0 -printf {RECORD} 2>/dev/null"


def _find(sandbox: Sandbox, command: str) -> Iterator[bytes]:
    """The records that a command prints, up to MAX_LIST_BYTES of them."""
    output = gateway.stream(
        sandbox, f"{command}; true", user="root", timeout_s=VIEW_TIMEOUT_S
    )
    rest, taken = b"", 0
    with contextlib.closing(output) as pieces:
        for piece in pieces:
            *records, rest = (rest + piece).split(b"\0")
            yield from records
            taken += len(piece)
            if taken > MAX_LIST_BYTES:
                return


def _entry(record: bytes, folder: str) -> FileEntry | None:
    """An entry from its record; None for one that is no record."""
    parts = record.decode(errors="replace").split(" ", 5)
    if len(parts) < 6:
        return None
    own, target, size, modified, mode, name = parts
    try:
        modified_at = datetime.fromtimestamp(float(modified), UTC)
    except (ValueError, OverflowError, OSError):
        modified_at = None
    return FileEntry(
        name=name,
        path=posixpath.join(folder, name),
        is_dir=target == "d",
        is_file=target == "f",
        is_link=own == "l",
        size_bytes=int(size) if size.isdecimal() else 0,
        modified_at=modified_at,
        mode=mode[:10],
        is_named=_is_utf8(record),
    )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def capped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, until a file without end has given enough."""
    left = MAX_DOWNLOAD_BYTES
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise TooLarge("This is larger than a download may be.")
        yield piece
