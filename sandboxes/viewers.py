"""What a page shows of a file: by its name, and by the bytes that are in it.

Nothing here trusts a file: text goes through the template's escaping, Markdown and
tables through a cleaner, images only in formats that hold no program.
"""

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from . import markdown
from .text import plain

MAX_NOTEBOOK_BYTES = 8 << 20
MAX_CELLS = 500
MAX_OUTPUT = 20_000  # characters of one output
HEX_BYTES = 4096  # of a page
HEX_ROW = 16
# Shown as images, by the end of the name; nosniff keeps them that.
IMAGES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "ico": "image/x-icon",
    "svg": "image/svg+xml",
}
# By the end of the name: how it is shown, and that it can be seen as text too.
RICH = {"md": "markdown", "markdown": "markdown", "ipynb": "notebook"}


def image_type(name: str) -> str:
    """Its type when it is shown as an image, else empty."""
    return IMAGES.get(_ending(name), "")


def views_of(name: str, head: bytes) -> list[str]:
    """How a file can be seen, the best first; `head` is how it begins."""
    ending = _ending(name)
    if ending in IMAGES:
        return ["image", "text", "hex"] if ending == "svg" else ["image", "hex"]
    if ending == "pdf" and head.startswith(b"%PDF-"):
        return ["pdf", "hex"]
    if not is_text(head):
        return ["hex"]
    return [RICH[ending], "text", "hex"] if ending in RICH else ["text", "hex"]


def is_text(head: bytes) -> bool:
    """Whether bytes are UTF-8, but for a character that is cut at their end."""
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def hex_rows(data: bytes, offset: int) -> list[tuple[str, str, str]]:
    """Lines of a dump: where, sixteen bytes, and the same as printable ASCII."""
    rows = []
    for at in range(0, len(data), HEX_ROW):
        piece = data[at : at + HEX_ROW]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        rows.append((f"{offset + at:08x}", piece.hex(" "), text))
    return rows


@dataclass(frozen=True)
class Output:
    """What a cell printed: `kind` is text, error, image or html."""

    kind: str
    content: str


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook; Markdown is in `html`, code in `source`."""

    kind: str
    source: str = ""
    html: str = ""
    number: int | None = None
    outputs: list[Output] = field(default_factory=list)


@dataclass(frozen=True)
class Notebook:
    """A Jupyter notebook. `is_cut`: it has more cells than are shown."""

    cells: list[Cell]
    language: str
    is_cut: bool


def notebook(data: bytes) -> Notebook | None:
    """A notebook of format 4; None for what is none, or too large."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        return None
    raw = [cell for cell in found["cells"] if isinstance(cell, dict)]
    kernel = _dict(_dict(found, "metadata"), "kernelspec")
    return Notebook(
        [_cell(cell) for cell in raw[:MAX_CELLS]],
        str(kernel.get("language") or "")[:40],
        len(raw) > MAX_CELLS,
    )


def _dict(found: dict[str, Any], name: str) -> dict[str, Any]:
    inner = found.get(name)
    return inner if isinstance(inner, dict) else {}


def _text(value: object) -> str:
    """A notebook's text: a string, or a list of its lines."""
    lines: Iterable[object] = value if isinstance(value, list) else [value]
    return "".join(line for line in lines if isinstance(line, str))


def _cell(cell: dict[str, Any]) -> Cell:
    source = _text(cell.get("source"))
    match cell.get("cell_type"):
        case "markdown":
            return Cell("markdown", html=markdown.render(source))
        case "code":
            number = cell.get("execution_count")
            outputs = cell.get("outputs")
            shown = [
                _output(one)
                for one in (outputs if isinstance(outputs, list) else [])
                if isinstance(one, dict)
            ]
            return Cell(
                "code",
                source,
                number=number if isinstance(number, int) else None,
                outputs=shown,
            )
    return Cell("raw", source)


def _output(output: dict[str, Any]) -> Output:
    """The safest rich form of what a cell printed."""
    if output.get("output_type") == "stream":
        return Output("text", _short(_text(output.get("text"))))
    if output.get("output_type") == "error":
        trace = output.get("traceback")
        lines = trace if isinstance(trace, list) else []
        return Output("error", _short("\n".join(map(str, lines))))
    data = _dict(output, "data")
    for kind in ("image/png", "image/jpeg"):
        if image := _image(_text(data.get(kind))):
            return Output("image", f"data:{kind};base64,{image}")
    if html := _text(data.get("text/html")):
        # A link could show one address and lead to another.
        cleaned = markdown.clean(html, tags=markdown.TAGS - {"a"})
        if "<table" in cleaned:
            return Output("html", cleaned)
    return Output("text", _short(_text(data.get("text/plain"))))


def _image(text: str) -> str:
    """Base64 without spaces, empty when it is none."""
    packed = "".join(text.split())
    try:
        base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return packed


def _short(text: str) -> str:
    text = plain(text[: 2 * MAX_OUTPUT])
    return text if len(text) <= MAX_OUTPUT else f"{text[:MAX_OUTPUT]}\n[cut]"
