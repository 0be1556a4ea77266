"""An administrator adds a backend, probes it, and works in it, all by pages."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from .conftest import Product, screen, type_line


def test_a_backend_is_added_probed_and_used(
    page: Page, product: Product, shot: Callable[[Page, str], None]
) -> None:
    text = "".join(product.lines)
    url = re.findall(r'"api_url": "([^"]+)"', text)[-1]
    page.goto(f"{product.url}/sandboxes/backends/")
    page.get_by_role("link", name="New backend").click()
    page.get_by_label("Name").fill("second")
    page.get_by_label("Title").fill("Second machine")
    page.get_by_label("API URL").fill(url)
    page.get_by_label("Sandbox URL").fill(url)
    page.get_by_label("API key").fill("e2b_this_key_is_wrong")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("refuses this key")).to_be_visible()
    key = (product.data / "runtime.key").read_text().strip()
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(f"{product.url}/sandboxes/backends/")
    page.get_by_role("link", name="Second machine").click()
    page.get_by_role("button", name="Probe").click()
    expect(page.locator("[data-result=ok]").last).to_contain_text(
        "Dispose it", timeout=120_000
    )
    expect(page.locator("[data-result=failed]")).to_have_count(0)
    shot(page, "backend-probed")
    page.goto(f"{product.url}/sandboxes/new/")
    page.get_by_text("Second machine").click()
    page.get_by_role("button", name="Create and open terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "echo here-$((6 * 7))")
    expect(screen(page)).to_contain_text("here-42")
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_label("Facts")).to_contain_text("Second machine")
    page.get_by_role("button", name="Dispose").click()
    page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
    expect(page.get_by_text("is disposed")).to_be_visible()
    row = (
        "from sandboxes.models import *;BackendRow.objects.get(name='second').delete()"
    )
    product.manage("shell", "-c", row)
