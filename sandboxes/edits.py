"""Changes to a sandbox's files by a person: save, make, move, delete.

A file that is edited is known by the hash of what was read, so that nobody writes
over what somebody else wrote meanwhile without having seen it.
"""

import hashlib
import io
import posixpath
from dataclasses import dataclass

from kode_web.teams.models import User

from . import actions, files, gateway
from .errors import Exists, Invalid, NotFound
from .models import Sandbox

MAX_EDIT_BYTES = 1 << 20
MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Text:
    """A text file as a browser edits it: lines end in LF there.

    `version` is empty for a file that is not there yet; `newline` is what its lines
    end in where it is kept.
    """

    path: str
    text: str
    version: str
    newline: str = "\n"
    is_mixed: bool = False


class Conflict(Exception):
    """The file is not what the person began with; `theirs` is what it is now."""

    def __init__(self, theirs: Text) -> None:
        super().__init__("The file was changed meanwhile.")
        self.theirs = theirs


def read(sandbox: Sandbox, path: str) -> Text:
    """A file to be edited. Raises NotFound, and Invalid for what is no text."""
    entry = files.stat(sandbox, path)
    if not entry.is_file:
        raise Invalid("Only files can be edited.")
    if entry.size_bytes > MAX_EDIT_BYTES:
        raise Invalid("This file is too large to be edited here.")
    data = files.read(sandbox, path, MAX_EDIT_BYTES + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Invalid("This file is no UTF-8 text and cannot be edited.") from error
    if "\0" in text or len(data) > MAX_EDIT_BYTES:
        raise Invalid("This file is no text and cannot be edited.")
    crlf = text.count("\r\n")
    is_mixed = 0 < crlf < text.count("\n") or "\r" in text.replace("\r\n", "")
    return Text(
        path=entry.path,
        text=text.replace("\r\n", "\n").replace("\r", "\n"),
        version=hashlib.sha256(data).hexdigest(),
        newline="\r\n" if crlf and not is_mixed else "\n",
        is_mixed=is_mixed,
    )


def save(user: User, sandbox: Sandbox, path: str, text: str, version: str) -> Text:
    """Write a file if it still is of that version; empty means it must be new.

    Raises Conflict, Invalid.
    """
    where = files.clean(sandbox, path)
    try:
        theirs = read(sandbox, where)
    except NotFound:
        theirs = Text(where, "", "")
    if theirs.version != version:
        raise Conflict(theirs)
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    data = lines.replace("\n", theirs.newline).encode()
    if len(data) > MAX_EDIT_BYTES:
        raise Invalid("This is too large to be edited here. Upload it as a file.")
    gateway.upload(sandbox, where, io.BytesIO(data))
    kind = "file.edited" if version else "file.created"
    _record(user, sandbox, kind, path=where, size_bytes=len(data))
    return read(sandbox, where)


def make_folder(user: User, sandbox: Sandbox, folder: str, name: str) -> str:
    """A new folder; its path. Raises NotReady when the name is taken."""
    path = free_path(sandbox, folder, name)
    gateway.make_dir(sandbox, path)
    _record(user, sandbox, "file.created", path=path, folder=True)
    return path


def free_path(sandbox: Sandbox, folder: str, name: str) -> str:
    """Where a new thing of that name would be. Raises Invalid, NotReady."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise Invalid("A name is not empty, and has no slash. Choose another.")
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise Invalid(f"A name has at most {MAX_NAME_BYTES} bytes. Choose another.")
    path = files.clean(sandbox, posixpath.join(folder, name))
    _check_free(sandbox, path)
    return path


def _check_free(sandbox: Sandbox, path: str) -> None:
    try:
        files.stat(sandbox, path)
    except NotFound:
        return
    raise Exists(f"{path} is there already. Choose another name.")


def move(user: User, sandbox: Sandbox, path: str, to: str) -> str:
    """Rename or move; `to` is a name, or a path from where it is. Its new path."""
    old = files.clean(sandbox, path)
    if old in ("/", files.HOME):
        raise Invalid("This folder cannot be moved.")
    if not to.strip("/ "):
        raise Invalid("Give a new name or path.")
    new = files.clean(sandbox, posixpath.join(posixpath.dirname(old), to))
    if new == old:
        return old
    if new.startswith(f"{old}/"):
        raise Invalid("A folder cannot be moved into itself.")
    files.stat(sandbox, old)
    _check_free(sandbox, new)
    gateway.move(sandbox, old, new)
    _record(user, sandbox, "file.moved", path=old, to=new)
    return new


def delete(user: User, sandbox: Sandbox, path: str) -> str:
    """Delete a file, or a folder with all it holds; the folder it was in."""
    where = files.clean(sandbox, path)
    if where in ("/", files.HOME):
        raise Invalid("This folder cannot be deleted.")
    gateway.remove(sandbox, where)
    _record(user, sandbox, "file.deleted", path=where)
    return posixpath.dirname(where)


def _record(user: User, sandbox: Sandbox, kind: str, **data: object) -> None:
    short = {k: v[:500] if isinstance(v, str) else v for k, v in data.items()}
    actions.record(sandbox, kind, actor=user, **short)
