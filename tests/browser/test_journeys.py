"""The five journeys of a developer, in a real browser against the real product."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from .conftest import Product, screen, type_line

type Shot = Callable[[Page, str], None]


@pytest.fixture
def terminal(page: Page, product: Product) -> Iterator[Page]:
    """A page on the terminal of a sandbox of its own, disposed at the end."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    expect(screen(page)).to_contain_text("$")
    home = page.url
    yield page
    page.goto(home)
    dispose(page)


def dispose(page: Page) -> None:
    """Dispose the sandbox of this page by its dialog."""
    page.get_by_role("button", name="Dispose").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="Download")).to_be_visible()
    dialog.get_by_role("button", name="Dispose").click()


def test_one_click_leads_to_a_prompt_that_answers(terminal: Page, shot: Shot) -> None:
    type_line(terminal, "echo answer=$((6*7))")
    expect(screen(terminal)).to_contain_text("answer=42")
    shot(terminal, "terminal")


def test_reload_shows_the_same_shell_and_screen(terminal: Page) -> None:
    type_line(terminal, "cd /tmp; mark=kept; echo before-reload")
    expect(screen(terminal)).to_contain_text("before-reload")
    terminal.reload()
    expect(screen(terminal)).to_contain_text("before-reload")
    type_line(terminal, "echo $mark-$PWD")
    expect(screen(terminal)).to_contain_text("kept-/tmp")


def test_reload_inside_a_full_screen_program(terminal: Page) -> None:
    type_line(terminal, "top -d 1")
    expect(screen(terminal)).to_contain_text("PID")
    terminal.reload()
    expect(screen(terminal)).to_contain_text("PID")
    expect(screen(terminal)).to_contain_text("COMMAND")
    terminal.keyboard.press("q")
    type_line(terminal, "echo back-$?")
    expect(screen(terminal)).to_contain_text("back-0")
