"""Finding files by their names or by what is in them, inside the sandbox."""

import contextlib
import posixpath
import shlex
from dataclasses import dataclass, field

from . import files, gateway
from .errors import Invalid
from .models import Sandbox

TIMEOUT_S = 15
# A search ends by itself before its caller gives up.
SEARCH_S = 10
MAX_QUERY = 200
MAX_FILES = 200
MAX_LINES = 20  # of one file
MAX_LINE = 300  # characters
MAX_FILE = "5M"
MAX_OUTPUT_BYTES = 2 << 20
# Exit codes of one that took too long, and of one that printed too much.
STOPPED = (b"124", b"141")
# Large, and not what a person looks for.
SKIPPED = (".git", "node_modules", ".venv", "__pycache__", ".cache")


@dataclass(frozen=True)
class Hit:
    """A file that fits; `lines` are those with the text, with their numbers."""

    path: str
    name: str
    is_dir: bool = False
    lines: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """What a search found. `is_cut`: there is more, or it took too long."""

    hits: list[Hit]
    is_cut: bool


def by_name(sandbox: Sandbox, folder: str, query: str) -> Found:
    """Files and folders below one whose names hold the text."""
    match = "-name" if _has_upper(query) else "-iname"
    pattern = "".join(f"\\{c}" if c in "*?[]\\" else c for c in _checked(query))
    output, is_cut = _run(
        sandbox,
        f"{_below(sandbox, folder)} {match} {shlex.quote(f'*{pattern}*')} "
        rf"-printf '%y %p\0'",
    )
    hits = []
    for record in output.split(b"\0")[:-1]:
        kind, _, path = record.decode(errors="replace").partition(" ")
        hits.append(Hit(path, posixpath.basename(path), kind == "d"))
    return _found(hits, is_cut)


def by_text(sandbox: Sandbox, folder: str, query: str) -> Found:
    """Text files below a folder that hold the text, with the lines."""
    case = "" if _has_upper(query) else "-i"
    output, is_cut = _run(
        sandbox,
        f"{_below(sandbox, folder)} -type f -size -{MAX_FILE} -print0 | "
        f"xargs -0 -r grep -HnIZsF {case} -m {MAX_LINES} -e "
        f"{shlex.quote(_checked(query))} --",
    )
    hits: dict[str, Hit] = {}
    for line in output.split(b"\n")[:-1]:
        name, nul, rest = line.partition(b"\0")
        number, colon, text = rest.partition(b":")
        if not nul or not colon or not number.isdigit():
            continue
        path = name.decode(errors="replace")
        hit = hits.setdefault(path, Hit(path, posixpath.basename(path)))
        hit.lines.append((int(number), text.decode(errors="replace")[:MAX_LINE]))
    return _found(list(hits.values()), is_cut)


def _checked(query: str) -> str:
    if not query.strip() or len(query) > MAX_QUERY or "\0" in query or "\n" in query:
        raise Invalid(f"Search for 1 to {MAX_QUERY} characters of one line.")
    return query


def _has_upper(query: str) -> bool:
    """Whoever types a capital means it."""
    return query != query.lower()


def _below(sandbox: Sandbox, folder: str) -> str:
    """A `find` of what is below a folder, without what nobody looks for."""
    where = files.clean(sandbox, folder).rstrip("/") + "/"
    skipped = " -o ".join(f"-name {shlex.quote(name)}" for name in SKIPPED)
    return f"find {shlex.quote(where)} -xdev -mindepth 1 \\( {skipped} \\) -prune -o"


def _run(sandbox: Sandbox, command: str) -> tuple[bytes, bool]:
    """What a command prints, and whether it was stopped before its end."""
    limited = f"timeout {SEARCH_S} bash -c {shlex.quote(f'{command} 2>/dev/null')}"
    kept = bytearray()
    output = gateway.stream(
        sandbox,
        rf"{limited} | head -c {MAX_OUTPUT_BYTES}; printf '\0%d' ${{PIPESTATUS[0]}}",
        timeout_s=TIMEOUT_S,
    )
    with contextlib.closing(output) as pieces:
        for piece in pieces:
            kept += piece
    found, _, status = bytes(kept).rpartition(b"\0")
    return found, status in STOPPED


def _found(hits: list[Hit], is_cut: bool) -> Found:
    hits.sort(key=lambda hit: hit.path.lower())
    return Found(hits[:MAX_FILES], is_cut or len(hits) > MAX_FILES)
