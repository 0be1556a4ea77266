"""The five journeys of a developer, in a real browser against the real product."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

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
    if page.get_by_role("button", name="Dispose").count():
        dispose(page)


def dispose(page: Page) -> None:
    """Dispose the sandbox of this page by its dialog."""
    page.get_by_role("button", name="Dispose").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="Download")).to_be_visible()
    dialog.get_by_role("button", name="Dispose").click()
    # A page that is closed while it navigates may never say that it closed.
    expect(page.get_by_text("ended").first).to_be_visible()


def test_one_click_leads_to_a_prompt_that_answers(terminal: Page, shot: Shot) -> None:
    type_line(terminal, "echo answer=$((6*7))")
    expect(screen(terminal)).to_contain_text("answer=42")
    recent = terminal.locator("#rail-recent .state").first
    expect(recent).to_have_attribute("data-state", "running")
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


def test_reload_inside_an_editor(terminal: Page) -> None:
    """less draws on the alternate screen like vim, which a host may lack."""
    type_line(terminal, "seq 1000 > /tmp/long; vim /tmp/long || less /tmp/long")
    expect(screen(terminal)).to_contain_text("12")
    terminal.reload()
    expect(screen(terminal)).to_contain_text("12")
    expect(screen(terminal)).not_to_contain_text("$ ")
    type_line(terminal, ":q")
    expect(screen(terminal)).to_contain_text("$ ")


def test_a_server_opens_as_a_preview_on_its_own_host(
    terminal: Page, product: Product, shot: Shot
) -> None:
    type_line(
        terminal,
        "mkdir /tmp/site; cd /tmp/site; echo '<h1>It serves</h1>' > index.html; "
        "python3 -m http.server 8123 >/tmp/log 2>&1 &",
    )
    terminal.get_by_role("link", name="Ports").click()
    row = terminal.get_by_role("row").filter(has_text=":8123")
    expect(row).to_contain_text("python3")
    shot(terminal, "ports")
    with terminal.context.expect_page() as opened:
        row.get_by_role("button", name="Open").click()
    preview = opened.value
    expect(preview.get_by_role("heading")).to_have_text("It serves")
    code = re.search(r"/sandboxes/(\w+)/", terminal.url)[1]
    assert preview.url.startswith(f"http://8123-{code}.preview.localhost:")
    assert not preview.evaluate("document.cookie")
    # The link is spent, and another browser has no way in.
    stranger = terminal.context.browser.new_context().new_page()
    answer = stranger.goto(preview.url)
    assert answer.status == 403
    stranger.context.close()
    preview.close()
    terminal.go_back()


def test_a_preview_sees_nothing_of_the_dashboard(terminal: Page) -> None:
    type_line(
        terminal,
        "cd /tmp; printf 'import http.server as h\\nclass H(h.BaseHTTPRequestHandler):"
        "\\n def do_GET(s):\\n  s.send_response(200);s.end_headers();"
        "s.wfile.write(str(s.headers).encode())\\n"
        'h.HTTPServer(("127.0.0.1",8124),H).serve_forever()\\n\' > e.py; '
        "python3 e.py >/dev/null 2>&1 &",
    )
    terminal.get_by_role("link", name="Ports").click()
    row = terminal.get_by_role("row").filter(has_text=":8124")
    with terminal.context.expect_page() as opened:
        row.get_by_role("button", name="Open").click()
    preview = opened.value
    preview.wait_for_load_state()
    seen = preview.inner_text("body").lower()
    assert "host: " in seen
    assert "kode-preview" not in seen
    assert "__host-kode" not in seen
    preview.close()


def test_a_file_is_seen_and_downloaded(terminal: Page, shot: Shot) -> None:
    type_line(terminal, "mkdir work; echo 'some notes' > work/notes.txt; echo sa''ved")
    expect(screen(terminal)).to_contain_text("saved")
    terminal.get_by_role("link", name="Files").click()
    terminal.get_by_role("link", name="work/").first.click()
    shot(terminal, "files")
    terminal.get_by_role("link", name="notes.txt").first.click()
    expect(terminal.get_by_text("some notes").first).to_be_visible()
    with terminal.expect_download() as download:
        terminal.get_by_role("link", name="Download").first.click()
    assert download.value.path().read_text() == "some notes\n"


def test_pause_and_resume_keep_the_shell(terminal: Page) -> None:
    type_line(terminal, "mark=kept; echo re''ady")
    expect(screen(terminal)).to_contain_text("ready")
    terminal.get_by_role("button", name="Pause").click()
    terminal.get_by_role("button", name="Resume").first.click()
    expect(screen(terminal)).to_contain_text("ready")
    type_line(terminal, "echo $mark-$((1+1))")
    expect(screen(terminal)).to_contain_text("kept-2")


def test_dispose_offers_the_work_first(terminal: Page, shot: Shot) -> None:
    terminal.get_by_role("button", name="Dispose").first.click()
    dialog = terminal.get_by_role("dialog")
    with terminal.expect_download() as download:
        dialog.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes()[:2] == b"\x1f\x8b"
    shot(terminal, "dispose")
    dialog.get_by_role("button", name="Dispose").click()
    expect(terminal.get_by_text("ended").first).to_be_visible()


def test_an_agent_asks_works_and_reports(
    page: Page, product: Product, shot: Shot
) -> None:
    page.goto(product.url)
    page.get_by_label("What should be done?").fill("run echo made-$((40+2))")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"/agents/[0-9a-f]{32}/"))
    expect(page.get_by_text("Offline command model").first).to_be_visible()
    shot(page, "agent-approval")
    page.get_by_role("button", name="Allow once").click()
    expect(page.locator(".call .output", has_text="made-42")).to_have_count(1)
    expect(page.locator(".exit").first).to_contain_text("exit 0")
    shot(page, "agent")
    page.reload()
    expect(page.locator(".call .output", has_text="made-42")).to_have_count(1)


def test_an_agent_works_on_while_the_browser_is_closed(
    page: Page, product: Product, browser: Browser, signed_in: BrowserContext
) -> None:
    page.goto(product.url)
    page.get_by_label("What should be done?").fill("run sleep 3; echo late-$((1+1))")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Allow once").click()
    expect(page.locator(".call[data-state=executing]")).to_be_visible()
    address = page.url
    page.goto("about:blank")
    later = signed_in.new_page()
    later.goto(address)
    expect(later.locator(".call .output", has_text="late-2")).to_have_count(1)
    later.close()
