"""Output of programs as text: without terminal sequences and invisible marks."""

import re

ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")
# At the end of a text that goes on elsewhere.
UNFINISHED = re.compile(r"(\x1b(\[[0-?]*[ -/]*|\][^\x07\x1b]{0,200})?|\r)\Z")
# Controls, and the marks that reorder or hide text.
HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)


def plain(text: str) -> str:
    """The text without terminal sequences and invisible characters."""
    text = ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return HIDDEN.sub("", text)
