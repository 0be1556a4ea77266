"""Copies trees that somebody hostile made and may be changing meanwhile.

Everything is opened from the directory it was found in and no link is followed, so
nothing outside the tree can be read. What overlayfs keeps beside the files, such as
marks of removed ones, is copied along.
"""

import contextlib
import errno
import fcntl
import os
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path

CHUNK_BYTES = 1 << 24
MAX_DEPTH = 1000  # of folders in each other; each holds two descriptors
FICLONE = 0x40049409
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Stopped(OSError):
    """The copy was given up."""


@dataclass
class Copy:
    """One copy under way; `links` holds a name of each file that has several."""

    stopped: threading.Event
    links: int
    seen: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class Level:
    """A folder being copied and the names in it that are still to do."""

    source: int
    target: int
    info: os.stat_result
    names: list[str]


def copy(source: Path, target: Path, stopped: threading.Event) -> None:
    """Make `target` a copy of the folder `source`. Raises OSError."""
    target.mkdir(mode=0o700)
    links = target.parent / f"{target.name}.links"
    links.mkdir(mode=0o700)
    descriptor = os.open(links, _DIRECTORY)
    try:
        top = os.open(source, _DIRECTORY)
        _tree(_level(top, os.open(target, _DIRECTORY)), Copy(stopped, descriptor))
        for name in os.listdir(descriptor):
            os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    links.rmdir()


def _tree(top: Level, work: Copy) -> None:
    levels = [top]
    try:
        while levels:
            level = levels[-1]
            if work.stopped.is_set():
                raise Stopped("The runtime ends.")
            if not level.names:
                _dress(f"/proc/self/fd/{level.source}", level.target, level.info)
                _close(levels.pop())
            elif inner := _entry(level, level.names.pop(), work):
                levels.append(inner)
                if len(levels) > MAX_DEPTH:
                    raise OSError(errno.ENAMETOOLONG, "Folders are nested too deep.")
    finally:
        for level in levels:
            _close(level)


def _level(source: int, target: int) -> Level:
    return Level(source, target, os.fstat(source), os.listdir(source))


def _close(level: Level) -> None:
    os.close(level.source)
    os.close(level.target)


def _entry(level: Level, name: str, work: Copy) -> Level | None:
    """Copy one name; a folder is only made, and returned to be gone through."""
    try:
        info = os.stat(name, dir_fd=level.source, follow_symlinks=False)
    except FileNotFoundError:
        return None  # it goes while we look
    if stat.S_ISDIR(info.st_mode):
        source = os.open(name, _DIRECTORY, dir_fd=level.source)
        os.mkdir(name, 0o700, dir_fd=level.target)
        return _level(source, os.open(name, _DIRECTORY, dir_fd=level.target))
    identity = (info.st_dev, info.st_ino)
    known = str(info.st_ino)
    if identity in work.seen:
        _link(work.links, known, level.target, name)
        return None
    if stat.S_ISREG(info.st_mode):
        _file(level, name, work.stopped)
    else:
        _special(level, name, info)
    if info.st_nlink > 1:
        work.seen.add(identity)
        _link(level.target, name, work.links, known)
    return None


def _link(source: int, name: str, target: int, other: str) -> None:
    os.link(name, other, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def _file(level: Level, name: str, stopped: threading.Event) -> None:
    source = os.open(name, _READ, dir_fd=level.source)
    try:
        info = os.fstat(source)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EAGAIN, "A file changed while it was copied.")
        target = os.open(name, _WRITE, 0o600, dir_fd=level.target)
        try:
            _content(source, target, info.st_size, stopped)
            _dress(f"/proc/self/fd/{source}", target, info)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _content(source: int, target: int, size: int, stopped: threading.Event) -> None:
    """Share the blocks where the file system can; else copy what is no hole."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, FICLONE, source)
        return
    os.ftruncate(target, size)
    place = 0
    while place < size:
        try:
            place = os.lseek(source, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end
                return
            raise
        end = min(os.lseek(source, place, os.SEEK_HOLE), size)
        while place < end:
            if stopped.is_set():
                raise Stopped("The runtime ends.")
            count = min(end - place, CHUNK_BYTES)
            done = os.copy_file_range(source, target, count, place, place)
            if not done:
                return
            place += done


def _special(level: Level, name: str, info: os.stat_result) -> None:
    """A link, a pipe, a socket, or overlayfs's mark of a removed file."""
    if stat.S_ISLNK(info.st_mode):
        goal = os.readlink(name, dir_fd=level.source)
        os.symlink(goal, name, dir_fd=level.target)
    else:
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=level.target)
    _attributes(
        f"/proc/self/fd/{level.source}/{name}",
        f"/proc/self/fd/{level.target}/{name}",
        follow=False,
    )
    at = level.target
    os.chown(name, info.st_uid, info.st_gid, dir_fd=at, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=at)
    times = (info.st_atime_ns, info.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=at, follow_symlinks=False)


def _dress(source: str, target: int, info: os.stat_result) -> None:
    """Give a copied file or folder the owner, mode, attributes and times it had."""
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    _attributes(source, f"/proc/self/fd/{target}", follow=True)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _attributes(source: str, target: str, *, follow: bool) -> None:
    """Copy the extended attributes; only those of overlayfs must arrive."""
    for name in os.listxattr(source, follow_symlinks=follow):
        try:
            value = os.getxattr(source, name, follow_symlinks=follow)
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError:
            if ".overlay." in name:
                raise
