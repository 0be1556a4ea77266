"""The last bytes of a terminal, numbered from its first one on."""

import re
from collections import deque

RING_BYTES = 1 << 20
# A cut moves on to the next line if one begins within this.
LINE_BYTES = 4096
# Small output is kept in pieces of this size, so that finding a place stays quick.
PIECE_BYTES = 16 << 10
MODE = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])")
# An escape sequence may lie across two pieces; this much is looked at again.
OVERLAP = 48
# What a screen cannot be drawn without: cursor keys, mouse, alternate screen,
# bracketed paste, hidden cursor.
KEPT_MODES = frozenset({1, 7, 25, 47, 1000, 1002, 1003, 1004, 1006, 1047, 1049, 2004})
ALTERNATE = frozenset({47, 1047, 1049})


class Ring:
    """Bytes by absolute offset; the oldest are dropped, their modes remembered."""

    def __init__(self, limit: int = RING_BYTES) -> None:
        self.start = self.end = 0
        self._limit = limit
        self._pieces: deque[bytearray] = deque()
        self._dropped_modes: dict[int, bool] = {}
        self._modes: dict[int, bool] = {}
        self._seam = self._dropped_seam = b""

    def append(self, data: bytes) -> None:
        """Add output at the end."""
        last = self._pieces[-1] if self._pieces else None
        if last is not None and len(last) + len(data) <= PIECE_BYTES:
            last += data
        else:
            self._pieces.append(bytearray(data))
        self.end += len(data)
        self._seam = _scan(self._modes, self._seam, data)
        while self.end - self.start > self._limit:
            piece = self._pieces.popleft()
            self.start += len(piece)
            self._dropped_seam = _scan(self._dropped_modes, self._dropped_seam, piece)

    def read(self, offset: int, limit: int) -> bytes:
        """Up to `limit` bytes from an offset that the ring still holds."""
        position, found, size = self.start, [], 0
        for piece in self._pieces:
            if position + len(piece) > offset:
                skip = max(0, offset - position)
                part = piece[skip : skip + limit - size]
                found.append(part)
                size += len(part)
                if size >= limit:
                    break
            position += len(piece)
        return b"".join(found)

    def replay_start(self) -> tuple[int, bytes]:
        """Where a viewer without history begins, and what to write before it.

        After a cut that is the start of a line, and the prefix sets the modes
        that the lost bytes had set.
        """
        if self.start == 0:
            return 0, b""
        head = self.read(self.start, LINE_BYTES)
        line = head.find(b"\n")
        start = self.start + (line + 1 if line >= 0 else 0)
        return start, _prefix(self._dropped_modes)

    def tail(self, limit: int) -> bytes:
        """The newest output: what a new ring may begin with.

        It is whole lines, after the modes that what lies before them had set.
        """
        start, prefix = self.replay_start()
        if self.end - start <= limit:
            return prefix + self.read(start, limit)
        cut, at = self.end - limit, self.start
        modes, seam = dict(self._dropped_modes), self._dropped_seam
        for piece in self._pieces:
            seam = _scan(modes, seam, piece[: max(0, cut - at)])
            at += len(piece)
        data = self.read(cut, limit)
        line = data.find(b"\n", 0, LINE_BYTES)
        return _prefix(modes) + data[line + 1 :]

    @property
    def is_full_screen(self) -> bool:
        """Whether a program draws the whole screen now."""
        return any(self._modes.get(mode) for mode in ALTERNATE)


def _prefix(modes: dict[int, bool]) -> bytes:
    """What sets the modes."""
    return b"".join(
        b"\x1b[?%d%b" % (mode, b"h" if is_on else b"l")
        for mode, is_on in sorted(modes.items())
    )


def _scan(modes: dict[int, bool], seam: bytes, data: bytes | bytearray) -> bytes:
    """Note the modes that `data` sets; returns what the next piece begins with."""
    if data.find(b"\x1b") < 0 and b"\x1b" not in seam:
        # Most floods: one quick look, and no copy.
        return bytes(data[-OVERLAP:])
    text = seam + data
    if b"\x1b[?" not in text:
        return text[-OVERLAP:]
    for numbers, action in MODE.findall(text):
        for number in numbers.split(b";"):
            if number and int(number) in KEPT_MODES:
                modes[int(number)] = action == b"h"
    return text[-OVERLAP:]
