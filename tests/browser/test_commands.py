"""Commands in a real browser: run one, watch it, reload in the middle, kill it."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from .conftest import Product

Shot = Callable[[Page, str], None]


@pytest.fixture
def commands(page: Page, product: Product) -> Iterator[Page]:
    """A page on the commands of a sandbox of its own, disposed at the end."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    page.get_by_role("link", name="Commands").click()
    yield page
    page.get_by_role("button", name="Dispose").click()
    page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
    expect(page.get_by_text("ended").first).to_be_visible()


def run(page: Page, text: str) -> None:
    page.get_by_label("Command", exact=True).fill(text)
    page.get_by_role("button", name="Run", exact=True).click()


def test_a_command_streams_also_over_a_reload(commands: Page, shot: Shot) -> None:
    run(commands, "for i in 1 2 3 4 5 6; do echo line-$i; sleep 1; done; exit 3")
    output = commands.get_by_role("log", name="Output")
    expect(output).to_contain_text("line-2")
    commands.reload()
    expect(output).to_contain_text("line-6")
    expect(commands.locator("#facts .exit")).to_have_text("exit 3")
    assert output.inner_text().split() == [f"line-{i}" for i in range(1, 7)]
    shot(commands, "command")


def test_a_command_is_killed_and_run_again(commands: Page, shot: Shot) -> None:
    run(commands, "echo begun; sleep 300")
    expect(commands.get_by_role("log", name="Output")).to_contain_text("begun")
    commands.get_by_role("button", name="Kill").click()
    expect(commands.locator("#facts")).to_contain_text("killed")
    expect(commands.locator("#facts")).to_contain_text("killed by")
    commands.get_by_role("link", name="All commands").click()
    run(commands, "echo no; false")
    expect(commands.locator("#facts .exit")).to_have_text("exit 1")
    commands.get_by_role("link", name="All commands").click()
    expect(commands.get_by_role("row")).to_have_count(3)
    shot(commands, "commands")
    commands.get_by_role("link", name="Failed").click()
    expect(commands.get_by_role("row")).to_have_count(3)
    commands.get_by_role("button", name="Run again").first.click()
    expect(commands.locator("#facts .exit")).to_have_text("exit 1")
