"""Every page, wide and narrow, in both themes: no barrier, no page that scrolls
sideways, no script beyond its budget."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from .conftest import ROOT, SHOTS, Product

PLAIN_LIMIT, TERMINAL_LIMIT = 30_000, 180_000
PAGES = {
    "home": "/",
    "sandboxes": "/sandboxes/",
    "sandbox-new": "/sandboxes/new/",
    "sandbox-terminal": "{sandbox}",
    "sandbox-commands": "{sandbox}exec/",
    "sandbox-recordings": "{sandbox}recordings/",
    "sandbox-metrics": "{sandbox}metrics/",
    "sandbox-snapshots": "{sandbox}snapshots/",
    "sandbox-files": "{sandbox}files/",
    "sandbox-ports": "{sandbox}ports/",
    "sandbox-activity": "{sandbox}activity/",
    "sandbox-settings": "{sandbox}settings/",
    "agents": "/agents/",
    "agent-new": "/agents/new/",
    "templates": "/templates/",
    "teams": "/teams/",
    "team": "/teams/personal-1/",
    "backends": "/sandboxes/backends/",
    "backend": "/sandboxes/backends/local/",
    "password": "/accounts/password/change/",
    "missing": "/sandboxes/00000000000000000000000000000000/",
}


@pytest.fixture(scope="package")
def sandbox(product: Product, signed_in) -> Iterator[str]:
    """The address of a sandbox for the pages to show."""
    page = signed_in.new_page()
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    page.locator(".xterm-rows").first.wait_for()
    path = page.url.removeprefix(product.url)
    page.close()
    return path


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_barrier(
    page: Page, product: Product, sandbox: str, name: str, width: int, theme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.goto(product.url + PAGES[name].format(sandbox=sandbox))
    page.wait_for_load_state("load")
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}-{width}-{theme}.png")
    found = Axe().run(page).response["violations"]
    grave = [
        (v["id"], [node["html"][:160] for node in v["nodes"]])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert grave == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("name", "limit"), [("home", PLAIN_LIMIT), ("sandbox-terminal", TERMINAL_LIMIT)]
)
def test_scripts_stay_within_their_budget(
    page: Page, product: Product, sandbox: str, name: str, limit: int
) -> None:
    sizes = {}

    def note(response) -> None:
        if response.request.resource_type == "script":
            sizes[response.url] = len(gzip.compress(response.body(), 9))

    page.on("response", note)
    page.goto(product.url + PAGES[name].format(sandbox=sandbox))
    page.wait_for_load_state("networkidle")
    assert 0 < sum(sizes.values()) <= limit, sizes


def test_the_picture_in_the_readme_is_of_today() -> None:
    """Taken by the journeys; `cp test-results/terminal.png docs/screenshot.png`."""
    picture = Path(ROOT / "docs" / "screenshot.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
