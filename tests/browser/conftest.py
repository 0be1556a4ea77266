"""The product as a person meets it: `./kode up`, a real browser, nothing replaced.

Playwright's blocking interface leaves an event loop running, so the browser's
fixtures end with this package and never meet the asynchronous tests of others.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    expect,
    sync_playwright,
)

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "test-results"
START_S = 120
expect.set_options(timeout=30_000)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """The browser's path; without one the tests are skipped, or fail if required."""
    names = (os.environ.get("KODE_CHROMIUM"), "chromium", "google-chrome")
    for name in filter(None, names):
        if path := shutil.which(name):
            return path
    if "browser" in os.environ.get("KODE_REQUIRE", ""):
        pytest.fail("no Chromium here, and KODE_REQUIRE names the browser")
    pytest.skip("no Chromium here: install it, or set KODE_CHROMIUM")


def own_environment() -> dict[str, str]:
    """The environment of a person's shell: nothing of this test run."""
    ours = ("KODE_", "DJANGO_", "PYTEST_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)}


@dataclass
class Product:
    """A running Kode Web with a data folder of its own."""

    data: Path
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    link: str = ""

    def read(self) -> None:
        """Collect output until the end; note the address and the link."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"(http://localhost:\d+)/accounts/link/\S+", line):
                self.url, self.link = found.group(1), found.group(0)
                self.ready.set()
        self.ready.set()

    def manage(self, *command: str) -> str:
        """Run a management command on the product's own data."""
        env = own_environment() | {
            "KODE_DATA": str(self.data),
            "KODE_SITE_URL": self.url,
        }
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def end_sandboxes(self) -> None:
        """Kill what the tests left running, so that nothing outlives them."""
        text = "".join(self.lines)
        found = re.findall(r'"api_url": "([^"]+)"', text)
        if not found:
            return
        headers = {"X-API-KEY": (self.data / "runtime.key").read_text().strip()}
        answer = httpx.get(f"{found[-1]}/v2/sandboxes", headers=headers)
        for sandbox in answer.json():
            url = f"{found[-1]}/sandboxes/{sandbox['sandboxID']}"
            httpx.delete(url, headers=headers, timeout=60)

    def processes(self, name: str) -> list[int]:
        """Pids of this product's processes whose command line holds `name`."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdecimal():
                    continue
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                environ = (entry / "environ").read_bytes().decode(errors="replace")
                if name in words and f"KODE_DATA={self.data}" in environ:
                    found.append(int(entry.name))
        return sorted(found)


@pytest.fixture(scope="package")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """Kode Web, started as a person starts it, on a free port."""
    chromium()
    data = tmp_path_factory.mktemp("product")
    process = subprocess.Popen(
        [sys.executable, "-m", "setup", "up", "--port", "0", "--data", str(data)],
        cwd=ROOT,
        env=own_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    product = Product(data, process)
    threading.Thread(target=product.read, daemon=True).start()
    try:
        assert product.ready.wait(START_S), "".join(product.lines)
        assert product.link, "".join(product.lines)
        yield product
    finally:
        product.end_sandboxes()
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        SHOTS.mkdir(exist_ok=True)
        (SHOTS / "product.log").write_text("".join(product.lines))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def signed_in(product: Product, browser: Browser) -> Iterator[BrowserContext]:
    """The administrator's browser, signed in by the printed link."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(product.link)
    page.wait_for_url(f"{product.url}/")
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(signed_in: BrowserContext) -> Iterator[Page]:
    """A page of the administrator that must not look outside this machine."""
    page = signed_in.new_page()
    outside: list[str] = []
    broken: list[str] = []

    def check(url: str) -> None:
        host = re.sub(r"^\w+://|[:/?#].*$", "", url)
        local = host in ("localhost", "127.0.0.1") or host.endswith(".localhost")
        if not local and not url.startswith(("data:", "blob:", "about:")):
            outside.append(url)

    page.on("request", lambda request: check(request.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on(
        "console",
        lambda message: (
            broken.append(message.text)
            if "Content Security Policy" in message.text
            else None
        ),
    )
    yield page
    # Closing a page that is on its way to another address hangs at times.
    page.goto("about:blank")
    page.close()
    assert not outside
    assert not broken


def screen(page: Page) -> Locator:
    """The characters that the terminal shows."""
    return page.locator(".xterm-rows").first


def type_line(page: Page, text: str) -> None:
    """Type into the terminal and press Enter."""
    page.locator(".xterm-helper-textarea").first.focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


@pytest.fixture
def shot() -> Callable[[Page, str], None]:
    """Keep a screenshot under test-results/."""

    def keep(page: Page, name: str) -> None:
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png")

    return keep
