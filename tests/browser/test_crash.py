"""SIGKILL of each process while a person works: nothing is lost or done twice."""

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from .conftest import Product, screen, type_line


@pytest.fixture
def terminal(page: Page, product: Product) -> Iterator[Page]:
    """A page on the terminal of a new sandbox."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "mark=kept; echo re''ady")
    expect(screen(page)).to_contain_text("ready")
    return page


def kill(product: Product, name: str) -> None:
    """Kill the product's process of that name, by its pid."""
    found = product.processes(name)
    assert found, name
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def test_the_web_process_is_killed(terminal: Page, product: Product) -> None:
    kill(product, "uvicorn")
    expect(terminal.locator("[data-terminal-status]")).to_contain_text("lost")
    expect(terminal.locator("[data-terminal-status]")).to_contain_text("connected")
    type_line(terminal, "echo $mark-$((1+1))")
    expect(screen(terminal)).to_contain_text("kept-2")


def test_the_runtime_is_killed(terminal: Page, product: Product) -> None:
    """Its terminals end with it; the sandbox, its files and processes do not."""
    type_line(terminal, "sleep 600 & echo kept > /tmp/mark; echo do''ne")
    expect(screen(terminal)).to_contain_text("done")
    kill(product, "sandboxes.local")
    status = terminal.locator("[data-terminal-status]")
    expect(status).to_contain_text("ended")
    terminal.get_by_role("button", name="New shell").click()
    expect(status).to_contain_text("connected")
    type_line(terminal, "cat /tmp/mark; pgrep -c sleep")
    expect(screen(terminal)).to_contain_text("kept")


def test_the_worker_is_killed_in_the_middle_of_a_command(
    page: Page, product: Product
) -> None:
    page.goto(product.url)
    command = "run echo begun | tee -a /tmp/begun; sleep 5; echo not''reached"
    page.get_by_label("What should be done?").fill(command)
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Allow once").click()
    call = page.locator(".call[data-state=executing]")
    expect(call.locator(".output").last).to_contain_text("begun")
    kill(product, "runagents")
    # Another worker takes over once the lease is over, and begins nothing twice.
    expect(page.get_by_text("interrupted").first).to_be_visible(timeout=90_000)
    page.get_by_label("Message to the agent").fill("run wc -l < /tmp/begun")
    page.get_by_role("button", name=re.compile("Send|Queue")).click()
    page.get_by_role("button", name="Allow once").click()
    expect(page.locator(".call .output").last).to_have_text("1")
