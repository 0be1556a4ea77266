"""A reload shows the same screen: the same text, the cursor in the same place."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from .conftest import Product, screen, type_line

PICTURE = """() => {
  const rows = Array.from(document.querySelectorAll(".xterm-rows > div"));
  const cursor = document.querySelector(".xterm-cursor");
  const row = rows.findIndex((row) => row.contains(cursor));
  const column = cursor && cursor.getBoundingClientRect().left;
  return [rows.map((row) => row.textContent.trimEnd()), row, column];
}"""
# What fills the screen -> what to type, and what is there when it is drawn.
PROGRAMS = {
    "prompt": ("cd /usr; echo he''re", "here"),
    "colour": (
        r"for i in $(seq 10000); do printf '\033[3%dmline %d\033[m\n' $((i%8)) $i;"
        " done",
        "line 10000",
    ),
    "top": ("top -d 600", "COMMAND"),
    "editor": ("seq 500 > /tmp/long; $EDITOR_HERE /tmp/long", "20"),
}


@pytest.fixture
def terminal(page: Page, product: Product) -> Iterator[Page]:
    """A page on the terminal of a sandbox of its own, disposed at the end."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "EDITOR_HERE=$(command -v vim vi less | head -1); echo re''ady")
    expect(screen(page)).to_contain_text("ready")
    yield page
    page.get_by_role("button", name="Dispose").click()
    page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
    expect(page.get_by_text("ended").first).to_be_visible()


def settled(page: Page) -> list[object]:
    """The picture, once it is the same twice a second apart."""
    last = None
    for _ in range(40):
        picture: list[object] = page.evaluate(PICTURE)
        if picture == last and any(picture[0]):
            return picture
        last = picture
        page.wait_for_timeout(1000)
    raise AssertionError(f"the screen does not come to rest: {last}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_reload_shows_the_same_screen(terminal: Page, name: str) -> None:
    command, drawn = PROGRAMS[name]
    type_line(terminal, command)
    expect(screen(terminal)).to_contain_text(drawn)
    before = settled(terminal)
    terminal.reload()
    expect(screen(terminal)).to_contain_text(drawn)
    assert settled(terminal) == before
