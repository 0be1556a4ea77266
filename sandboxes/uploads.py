"""Uploads in pieces that go on where they stopped, by the tus protocol.

What a browser sends is gathered in the sandbox itself, in a part file, and moved to
its place when it is whole: the server keeps nothing, neither bytes nor rows, and an
upload survives its restart. The upload's address carries what it is about, signed.

Source: https://tus.io/protocols/resumable-upload, version 1.0.0: core, creation,
termination.
"""

import posixpath
import re
import shlex
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import IO

from django.core import signing

from kode_web.teams.models import User

from . import actions, files, gateway
from .errors import Exists, Invalid, NotFound, NotReady, SandboxError, TooLarge
from .models import Sandbox

LIFE_S = 7 * 24 * 3600
MAX_FILE_BYTES = 10 << 30
PARTS = "/var/tmp/kode-uploads"
SALT = "sandboxes.upload"
STEP_TIMEOUT_S = 60
KEY = re.compile(r"[0-9a-f]{16}")
# What to do with a file that is there already.
REFUSE, REPLACE, KEEP_BOTH = "", "replace", "both"
MAX_COPIES = 100


@dataclass(frozen=True)
class Upload:
    """A file on its way to `path`; `key` names its part file."""

    sandbox: str
    path: str
    size_bytes: int
    conflict: str
    key: str

    @property
    def token(self) -> str:
        """It, signed, for an address."""
        return signing.dumps(asdict(self), salt=SALT)

    @property
    def part(self) -> str:
        """Where its bytes are until it is whole."""
        return f"{PARTS}/{self.key}"


def begin(sandbox: Sandbox, path: str, size_bytes: int, conflict: str) -> Upload:
    """A new upload to a path. Raises Exists when there is a file already.

    Parts that nobody finished are removed here, after LIFE_S.
    """
    if conflict not in (REFUSE, REPLACE, KEEP_BOTH):
        raise Invalid("A file that is there already is replaced, kept beside, or kept.")
    if not 0 <= size_bytes <= MAX_FILE_BYTES:
        raise TooLarge(f"A file may have {MAX_FILE_BYTES >> 30} GiB here at most.")
    where = files.clean(sandbox, path)
    if posixpath.basename(where) in ("", ".", ".."):
        raise Invalid("A file needs a name.")
    if conflict == REFUSE:
        _check_free(sandbox, where)
    upload = Upload(sandbox.code, where, size_bytes, conflict, token_hex(8))
    part, days = shlex.quote(upload.part), LIFE_S // 86400
    _sh(
        sandbox,
        f"mkdir -p -m 700 {PARTS} && "
        f"find {PARTS} -xdev -type f -mtime +{days} -delete; : > {part}",
    )
    return upload


def _check_free(sandbox: Sandbox, path: str) -> None:
    try:
        entry = files.stat(sandbox, path)
    except NotFound:
        return
    if entry.is_dir:
        raise Invalid(f"{path} is a folder. Choose another name.")
    raise Exists(f"{path} is there already.")


def find(sandbox: Sandbox, token: str) -> Upload:
    """The upload of an address. Raises NotFound for a forged or old one."""
    try:
        upload = Upload(**signing.loads(token, salt=SALT, max_age=LIFE_S))
    except (signing.BadSignature, TypeError) as error:
        raise NotFound("There is no such upload. Begin it again.") from error
    if upload.sandbox != sandbox.code or not KEY.fullmatch(upload.key):
        raise NotFound("There is no such upload. Begin it again.")
    return upload


def progress(user: User, sandbox: Sandbox, upload: Upload) -> int:
    """How many bytes of it are there; what is whole is put in its place.

    Raises NotFound when it is no more, Exists as `finish` does.
    """
    part = shlex.quote(upload.part)
    script = (
        f"stat -c %s {part} 2>/dev/null || {{ stat -c %s {part}.done && echo done; }}"
    )
    said = _sh(sandbox, script).split()
    there = _number(said[0] if said else "")
    if there == upload.size_bytes and len(said) == 1:
        finish(user, sandbox, upload)
    return there


def append(
    user: User, sandbox: Sandbox, upload: Upload, at: int, content: IO[bytes]
) -> int:
    """Add bytes that begin at `at`; how many are there now.

    The same piece sent twice is added once. Raises NotReady for one that does not
    follow on what is there.
    """
    if at > upload.size_bytes:
        raise NotReady("This piece is past the end.")
    piece = f"{upload.part}.{token_hex(4)}"
    gateway.upload(sandbox, piece, content)
    part, piece = shlex.quote(upload.part), shlex.quote(piece)
    # The lock makes one of two requests wait that send the same piece at once.
    script = (
        f"[ -e {part} ] && exec 9>>{part} && flock 9 && "
        f'if [ "$(stat -c %s {part})" = {at} ]; then cat {piece} >&9; fi; '
        f"failed=$?; rm -f {piece}; stat -c %s {part} && exit $failed"
    )
    there = _number(_sh(sandbox, script))
    if there < at:
        raise NotReady("A piece before this one is missing.")
    if there > upload.size_bytes:
        cancel(sandbox, upload)
        raise Invalid("More was sent than the file has. Begin it again.")
    if there == upload.size_bytes:
        finish(user, sandbox, upload)
    return there


def finish(user: User, sandbox: Sandbox, upload: Upload) -> str:
    """Move what is whole to its place; its path. Once only, however often asked.

    Raises Exists when somebody made a file of that name meanwhile.
    """
    path = upload.path
    for number in range(1, MAX_COPIES):
        if _move(sandbox, upload, path):
            break
        if upload.conflict != KEEP_BOTH:
            raise Exists(f"{path} is there already.")
        stem, dot_type = posixpath.splitext(upload.path)
        path = f"{stem} ({number}){dot_type}"
    else:
        raise Exists(f"{upload.path} is there {MAX_COPIES} times already.")
    actions.record(
        sandbox,
        "file.uploaded",
        actor=user,
        path=path[:500],
        size_bytes=upload.size_bytes,
    )
    return path


def _move(sandbox: Sandbox, upload: Upload, path: str) -> bool:
    """Move the part file there; False when the name is taken.

    A folder is made if it is missing. What is written is the sandbox user's.
    """
    folder, to = posixpath.dirname(path), shlex.quote(path)
    part = shlex.quote(upload.part)
    if folder != "/":
        gateway.make_dir(sandbox, folder)
    free = "true" if upload.conflict == REPLACE else f"[ ! -e {to} ]"
    # The mark of its end first: an answer that is lost is asked for again.
    script = (
        f"exec 9<{part} && flock 9 && if [ -d {to} ]; then echo folder; "
        f"elif {free}; then chown {gateway.USER}: {part} && chmod 644 {part} && "
        f"truncate -s {upload.size_bytes} {part}.done && mv -fT {part} {to} && "
        "echo moved; else echo taken; fi"
    )
    said = _sh(sandbox, script).strip()
    if said == "folder":
        raise Invalid(f"{path} is a folder. Choose another name.")
    return said == "moved"


def cancel(sandbox: Sandbox, upload: Upload) -> None:
    """Give it up; what came so far is removed."""
    _sh(sandbox, f"rm -f {shlex.quote(upload.part)}*")


def _number(text: str) -> int:
    """What `stat` printed; whoever owns the sandbox may have put another there."""
    if not text.strip().isdecimal():
        raise SandboxError("The sandbox sent what it should not.")
    return int(text)


def _sh(sandbox: Sandbox, script: str) -> str:
    """What a script prints. Raises TooLarge for a full disk, NotFound."""
    result = gateway.run(
        sandbox, script, user="root", cwd="/", timeout_s=STEP_TIMEOUT_S
    )
    if result.exit_code == 0:
        return result.stdout
    if "No space left" in result.stderr:
        raise TooLarge("The sandbox's disk is full. Delete something, then go on.")
    if "No such file" in result.stderr or not result.stderr:
        raise NotFound("There is no such upload. Begin it again.")
    raise SandboxError(result.stderr.strip()[:300])
