"""Markdown of a model or a file as safe HTML: no raw HTML, image, hidden address.

What a model writes may be steered by whatever it read, and a file by anybody. An
image would fetch an address of its choice, with data in it, as soon as the page is
drawn; so there are none, and each link shows the host it leads to.
"""

from collections.abc import Set
from functools import lru_cache
from urllib.parse import urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from .text import plain

# A block above this is shown as plain text: parsing cost grows with the square.
MAX_MARKDOWN_BYTES = 64 << 10
# A small table source can become very large HTML.
MAX_HTML_BYTES = 1 << 20
TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "a"),
    *("ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def render(text: str) -> str:
    """Safe HTML of a model's answer."""
    text = plain(text)
    if len(text.encode()) > MAX_MARKDOWN_BYTES:
        return _as_text(text)
    html = _parser().render(text)
    if len(html.encode()) > MAX_HTML_BYTES:
        return _as_text(text)
    return clean(html)


def clean(html: str, *, tags: Set[str] = TAGS) -> str:
    """HTML with nothing in it but text, tables and links, if `tags` has them."""
    if len(html.encode()) > MAX_HTML_BYTES:
        return ""
    return nh3.clean(
        html,
        tags=set(tags),
        attributes={"a": {"href"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


def _as_text(text: str) -> str:
    return f"<pre>{nh3.clean_text(text)}</pre>"


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False})
    parser.enable(["table", "strikethrough"]).disable("image")
    parser.core.ruler.push("hosts", lambda state: _show_hosts(state.tokens))
    return parser


def _show_hosts(tokens: list[Token]) -> None:
    """Put each link's host behind its text, unless the text is the address."""
    for token in tokens:
        if not token.children:
            continue
        shown: list[Token] = []
        url, words = "", ""
        for child in token.children:
            if child.type == "link_open":
                url, words = str(child.attrs.get("href", "")), ""
            words += child.content
            shown.append(child)
            if child.type == "link_close" and (host := _host(url)) and words != url:
                shown.append(Token("text", "", 0, content=f" ({host})"))
        token.children = shown


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return "unreadable address"
