"""Ports in a real browser: seen at once, shown in a pane, opened to anybody."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from .conftest import Product, screen, type_line

Shot = Callable[[Page, str], None]
PAGE = "<h1>It serves</h1><script>document.body.append(window.origin)</script>"


@pytest.fixture
def served(page: Page, product: Product) -> Iterator[Page]:
    """The ports of a sandbox of its own in which a server runs on 8123."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "echo re''ady")
    expect(screen(page)).to_contain_text("ready")
    first = page.url
    page.get_by_role("link", name="Ports").click()
    expect(page.get_by_text("No server listens yet")).to_be_visible()
    other = page.context.new_page()
    other.goto(first)
    type_line(other, f"mkdir -p w && echo '{PAGE}' > w/index.html && cd w")
    type_line(other, "python3 -m http.server 8123")
    expect(screen(other)).to_contain_text("Serving")
    other.close()
    # By itself: nobody loads the page anew.
    expect(page.get_by_role("row", name=re.compile(":8123"))).to_be_visible()
    yield page
    page.goto(first)
    page.get_by_role("button", name="Dispose").click()
    page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
    expect(page.get_by_text("ended").first).to_be_visible()


def until(page: Page, address: str, text: str) -> None:
    """Load it until it says so: what is known of a right is two seconds old."""
    for _ in range(20):
        page.goto(address)
        if page.get_by_text(text).count():
            break
        page.wait_for_timeout(500)
    expect(page.get_by_text(text)).to_be_visible()


def test_a_preview_is_shown_in_the_pane(served: Page, shot: Shot) -> None:
    served.get_by_role("button", name="Show here").click()
    frame = served.frame_locator("iframe[title=Preview]")
    expect(frame.get_by_role("heading", name="It serves")).to_be_visible()
    expect(frame.get_by_text(".preview.localhost")).to_be_visible()
    served.get_by_text("Phone").click()
    shot(served, "ports-pane")
    served.get_by_role("button", name="Load the preview again").click()
    expect(frame.get_by_role("heading", name="It serves")).to_be_visible()
    served.get_by_role("button", name="Close the preview").click()
    expect(served.get_by_role("region", name="Preview")).to_be_hidden()


def test_a_public_port_opens_to_anybody_until_it_is_private(
    served: Page, browser: Browser, shot: Shot
) -> None:
    code = re.search(r"[0-9a-f]{32}", served.url)
    port = re.search(r":(\d+)/", served.url)
    assert code
    assert port
    address = f"http://8123-{code[0]}.preview.localhost:{port[1]}/"
    guest = browser.new_context()
    page = guest.new_page()
    page.goto(address)
    expect(page.get_by_text("Open this preview from")).to_be_visible()
    served.get_by_label("Port 8123: Private").click()
    shot(served, "ports-menu")
    served.once("dialog", lambda dialog: dialog.accept())
    served.get_by_role("button", name="Public").click()
    expect(served.get_by_label("Port 8123: Public")).to_be_visible()
    until(page, address, "runs in somebody's sandbox")
    shot(page, "ports-public-word")
    page.get_by_role("link", name="Go on").click()
    expect(page.get_by_role("heading", name="It serves")).to_be_visible()
    served.get_by_label("Port 8123: Public").click()
    served.get_by_role("button", name="Private").click()
    expect(served.get_by_label("Port 8123: Private")).to_be_visible()
    until(page, address, "Open this preview from")
    guest.close()
