"""Snapshots in a real browser: take one, fork, and find the same files again."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from .conftest import Product, screen, type_line


@pytest.fixture
def terminal(page: Page, product: Product) -> Iterator[Page]:
    """A page on the terminal of a sandbox; all that the test made is disposed."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "echo kept > ~/mark; echo re''ady")
    expect(screen(page)).to_contain_text("ready")
    first = page.url
    yield page
    for address in dict.fromkeys((page.url, first)):
        page.goto(address)
        page.get_by_role("button", name="Dispose").click()
        page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
        expect(page.get_by_text("ended").first).to_be_visible()


def test_a_fork_has_the_same_files(
    terminal: Page, shot: Callable[[Page, str], None]
) -> None:
    terminal.get_by_role("link", name="Snapshots").click()
    terminal.get_by_label("Name").fill("before the upgrade")
    terminal.get_by_role("button", name="Take snapshot").click()
    row = terminal.get_by_role("row", name="before the upgrade")
    expect(row).to_contain_text("ready")
    shot(terminal, "snapshots")
    old = terminal.url
    terminal.get_by_role("button", name="Fork now").click()
    terminal.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/$"))
    assert old not in terminal.url
    type_line(terminal, "cat ~/mark")
    expect(screen(terminal)).to_contain_text("kept")
