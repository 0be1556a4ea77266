"""Folders as one file: packed inside the sandbox, streamed as they are read."""

import io
import posixpath
import shlex
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime

from . import files, gateway
from .errors import SandboxError
from .models import Sandbox

TIMEOUT_S = 3600
PIECE_BYTES = 256 << 10
# What a zip can say of a time begins and ends there.
FIRST, LAST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
LINK = 0o120000 << 16
FOLDER_MARK = 0x10


def tar(sandbox: Sandbox, path: str, *, gzip: bool = True) -> Iterator[bytes]:
    """A folder as a tar archive.

    Raises NotFound. Other file systems inside, such as /proc, are left out.
    """
    where = files.stat(sandbox, path).path
    parent, name = posixpath.split(where)
    # A file that changes or cannot be read must not spoil the rest.
    command = (
        f"tar --create {'--gzip ' if gzip else ''}--sparse --one-file-system "
        "--ignore-failed-read --warning=no-file-changed "
        f"--directory={shlex.quote(parent or '/')} "
        f"-- {shlex.quote(name or '.')} 2>/dev/null || [ $? -eq 1 ]"
    )
    return files.capped(gateway.stream(sandbox, command, timeout_s=TIMEOUT_S))


def zip(sandbox: Sandbox, path: str) -> Iterator[bytes]:
    """The same as a zip archive, made here from the tar as it comes.

    Links stay links; pipes and devices are left out.
    """
    return _zipped(tar(sandbox, path, gzip=False))


class _Pieces(io.RawIOBase):
    """An iterator of bytes as an open file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with what is there."""
        while not self._rest:
            try:
                self._rest = next(self._pieces)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


class _Sink(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Keep it."""
        self._kept += data
        return len(data)

    def take(self) -> bytes:
        """All of it, once."""
        taken = bytes(self._kept)
        self._kept.clear()
        return taken


def _zipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    sink = _Sink()
    source = io.BufferedReader(_Pieces(pieces), PIECE_BYTES)
    try:
        with (
            tarfile.open(mode="r|", fileobj=source) as members,
            zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
        ):
            for member in members:
                yield from _member(members, member, out, sink)
    except tarfile.TarError as error:
        raise SandboxError("The sandbox sent no proper archive.") from error
    finally:
        getattr(pieces, "close", lambda: None)()
    yield sink.take()


def _member(
    members: tarfile.TarFile, member: tarfile.TarInfo, out: zipfile.ZipFile, sink: _Sink
) -> Iterator[bytes]:
    """One file, folder or link of the tar, written to the zip."""
    info = zipfile.ZipInfo(member.name, _time(member.mtime))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (member.mode & 0o777) << 16
    if member.isdir():
        info.filename += "/"
        info.external_attr |= FOLDER_MARK
        out.writestr(info, b"")
    elif member.issym() or member.islnk():
        # A second name of a file is kept as a link too: its bytes are gone by.
        target = member.linkname
        if member.islnk():
            target = posixpath.relpath(target, posixpath.dirname(member.name) or ".")
        info.external_attr |= LINK
        out.writestr(info, target)
    elif content := members.extractfile(member):
        with out.open(info, "w", force_zip64=True) as packed:
            while piece := content.read(PIECE_BYTES):
                packed.write(piece)
                yield sink.take()
    yield sink.take()


def _time(seconds: float) -> tuple[int, int, int, int, int, int]:
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return FIRST
    moment = (at.year, at.month, at.day, at.hour, at.minute, at.second)
    return min(max(moment, FIRST), LAST)
