"""Reads multipart/form-data piece by piece, in constant memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

MAX_HEAD_BYTES = 16_384  # headers of one part
END = b"--"


@dataclass
class Part:
    """A part of a form; `filename` is None for a plain field."""

    name: str
    filename: str | None


class Form:
    """Iterate `parts()`; read each part's `chunks()` to its end before the next.

    Raises ValueError when the body is not the form it says to be.
    """

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        boundary = parameters(content_type).get("boundary")
        if not boundary:
            raise ValueError("no boundary in the content type")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._body = body
        self._buffer = b"\r\n"  # so that the first boundary looks like the others

    async def parts(self) -> AsyncIterator[Part]:
        async for _ in self.chunks():  # the preamble
            pass
        while not await self._at_end():
            yield parse(await self._head())

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content up to the next boundary, which is consumed."""
        keep = len(self._delimiter) - 1
        while (at := self._buffer.find(self._delimiter)) < 0:
            cut = len(self._buffer) - keep
            if cut > 0:
                yield self._buffer[:cut]
                self._buffer = self._buffer[cut:]
            await self._more()
        if at:
            yield self._buffer[:at]
        self._buffer = self._buffer[at + len(self._delimiter) :]

    async def _at_end(self) -> bool:
        while len(self._buffer) < len(END):
            await self._more()
        return self._buffer.startswith(END)

    async def _head(self) -> bytes:
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ValueError("the headers of a part are too long")
            await self._more()
        head, self._buffer = self._buffer[:at], self._buffer[at + 4 :]
        return head

    async def _more(self) -> None:
        async for data in self._body:
            if data:
                self._buffer += data
                return
        raise ValueError("the form ends early")


def parse(head: bytes) -> Part:
    """The name and filename from the headers of a part."""
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "surrogateescape").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            fields = parameters(value)
    return Part(fields.get("name", ""), fields.get("filename"))


def parameters(header: str) -> dict[str, str]:
    """`form-data; name="a"; filename="b"` with quotes as browsers write them."""
    found: dict[str, str] = {}
    rest = header.partition(";")[2]
    while rest.strip():
        key, _, rest = rest.strip().partition("=")
        if rest.startswith('"'):
            value, rest = quoted(rest[1:])
        else:
            value, _, rest = rest.partition(";")
            value = value.strip()
        found[key.strip().lower()] = value
        rest = rest.lstrip().removeprefix(";")
    return found


def quoted(text: str) -> tuple[str, str]:
    """A quoted value and what follows it; `\\"` and `%22` stand for a quote."""
    value, at = "", 0
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\"):
            at += 1
        value += text[at]
        at += 1
    escapes = {"%22": '"', "%0D": "\r", "%0A": "\n"}
    for escape, char in escapes.items():
        value = value.replace(escape, char)
    return value, text[at + 1 :]
