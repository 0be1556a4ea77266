"""Terminals in a real browser: what hostile output and other people do to them."""

import re
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from .conftest import Product, screen, type_line

PHONE = {"width": 390, "height": 780}


@pytest.fixture
def terminal(page: Page, product: Product) -> Iterator[Page]:
    """A page on the terminal of a sandbox of its own, disposed at the end."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "echo re''ady")
    expect(screen(page)).to_contain_text("ready")
    yield page
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(re.search(r".*/sandboxes/\w+/", page.url)[0])
    page.get_by_role("button", name="Dispose").click()
    page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
    # A page that is closed while it navigates may never say that it closed.
    expect(page.get_by_text("ended").first).to_be_visible()


def size(page: Page) -> str:
    return page.locator("[data-terminal-size]").inner_text()


def test_a_count_out_of_all_measure_does_not_freeze_the_page(terminal: Page) -> None:
    text = "".join(rf"\033[2147483647{final}" for final in "bLIST@PMX")
    begun = time.monotonic()
    type_line(terminal, f"clear; printf 'x{text}\\n'; echo al''ive")
    expect(screen(terminal)).to_contain_text("alive")
    assert time.monotonic() - begun < 8


def test_the_clipboard_stays_the_persons(terminal: Page) -> None:
    type_line(
        terminal, r"printf '\033]5''2;c;aGFja2Vk\007\033]5''2;c;?\007'; echo d''one"
    )
    expect(screen(terminal)).to_contain_text("done")
    type_line(terminal, "echo af''ter")
    expect(screen(terminal)).to_contain_text("after")
    expect(screen(terminal)).not_to_contain_text("52;c")


def test_a_reload_does_not_answer_old_questions_again(terminal: Page) -> None:
    type_line(terminal, r"printf '\033[c'; read -rs -d c answer; echo re''ad")
    expect(screen(terminal)).to_contain_text("read")
    terminal.reload()
    expect(screen(terminal)).to_contain_text("read")
    type_line(terminal, "echo af''ter")
    expect(screen(terminal)).to_contain_text("after")
    expect(screen(terminal)).not_to_contain_text("1;2c")


def test_a_second_window_shows_the_size_of_who_types(terminal: Page) -> None:
    second = terminal.context.new_page()
    second.set_viewport_size({"width": 900, "height": 500})
    second.goto(terminal.url)
    expect(screen(second)).to_contain_text("ready")
    expect(second.locator("[data-terminal-size]")).to_have_text(size(terminal))
    before = size(terminal)
    type_line(second, "echo mi''ne")
    expect(second.locator("[data-terminal-size]")).not_to_have_text(before)
    expect(terminal.locator("[data-terminal-size]")).to_have_text(size(second))
    cols, rows = re.findall(r"\d+", size(second))
    type_line(second, "echo now=$(stty size)=")
    expect(screen(second)).to_contain_text(f"now={rows} {cols}=")
    second.close()


def test_a_phone_has_the_keys_that_it_lacks(
    terminal: Page, shot: Callable[[Page, str], None]
) -> None:
    terminal.set_viewport_size(PHONE)
    type_line(terminal, "sleep 1000; echo exit=$?")
    terminal.get_by_role("button", name="ctrl").click()
    terminal.keyboard.type("c")
    expect(terminal.get_by_role("button", name="ctrl")).to_have_attribute(
        "aria-pressed", "false"
    )
    type_line(terminal, "echo fr''ee")
    expect(screen(terminal)).to_contain_text("free")
    terminal.get_by_role("button", name="Up").click()
    expect(screen(terminal)).to_contain_text(re.compile("free.*echo fr''ee", re.S))
    shot(terminal, "terminal-phone")


def test_output_is_searched_and_a_title_is_text(
    terminal: Page, shot: Callable[[Page, str], None]
) -> None:
    type_line(terminal, r"seq 500; printf '\033]0;<b>up</b> to date\007'; sleep 4")
    expect(screen(terminal)).to_contain_text("500")
    tab = terminal.locator(".terminal-bar [aria-current]")
    expect(tab).to_have_attribute("title", "<b>up</b> to date")
    terminal.keyboard.press("Control+Shift+F")
    find = terminal.get_by_role("searchbox", name="Search the output")
    find.fill("123")
    expect(screen(terminal)).to_contain_text("123")
    shot(terminal, "terminal-search")
    find.press("Escape")
    expect(find).to_be_hidden()
    terminal.keyboard.type("echo ba''ck\r")
    expect(screen(terminal)).to_contain_text("back")


def test_ctrl_shift_escape_leaves_the_terminal(terminal: Page) -> None:
    keys = terminal.locator(".xterm-helper-textarea")
    keys.focus()
    terminal.keyboard.press("Control+Shift+Escape")
    expect(keys).not_to_be_focused()


def test_larger_letters_are_remembered(terminal: Page) -> None:
    before = int(size(terminal).split(" ")[0])
    terminal.locator(".xterm-helper-textarea").focus()
    for _ in range(4):
        terminal.keyboard.press("Control+Shift+Equal")
    expect(terminal.locator("[data-terminal-size]")).not_to_contain_text(f"{before} ")
    larger = size(terminal)
    terminal.reload()
    expect(terminal.locator("[data-terminal-size]")).to_have_text(larger)
    terminal.evaluate("localStorage.removeItem('terminal-font-size')")


def test_a_stranger_sees_nothing(
    terminal: Page, browser: Browser, product: Product
) -> None:
    stranger = browser.new_context().new_page()
    stranger.goto(terminal.url)
    expect(stranger.locator(".xterm")).to_have_count(0)
    stranger.context.close()


def test_a_recording_plays_what_was_shown(
    terminal: Page, shot: Callable[[Page, str], None]
) -> None:
    record = terminal.get_by_role("button", name="Record this shell")
    record.click()
    sign = terminal.get_by_role("link", name="recording", exact=True)
    expect(sign).to_be_visible()
    type_line(terminal, "echo re''corded")
    expect(screen(terminal)).to_contain_text("recorded")
    shot(terminal, "recording")
    record.click()
    expect(sign).to_be_hidden()
    terminal.reload()
    terminal.get_by_role("link", name="Recordings").click()
    terminal.get_by_role("link", name="Play").click()
    expect(screen(terminal)).to_contain_text("recorded")
    expect(terminal.get_by_role("button", name="Play")).to_be_visible()
    shot(terminal, "recording-played")


DROP = """([element, name, text]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([text], name));
  const how = { dataTransfer: carried, bubbles: true };
  element.dispatchEvent(new DragEvent("drop", how));
}"""


def test_a_dropped_file_lands_where_the_shell_is(terminal: Page) -> None:
    type_line(terminal, "mkdir -p /tmp/here; cd /tmp/here; echo the''re")
    expect(screen(terminal)).to_contain_text("there")
    element = terminal.locator("[data-terminal-url]").element_handle()
    terminal.evaluate(DROP, [element, "drop.txt", "from-$outside"])
    panel = terminal.get_by_role("status", name="Uploads")
    expect(panel).to_contain_text("in /tmp/here")
    type_line(terminal, "cat drop.txt")
    expect(screen(terminal)).to_contain_text("from-$outside")


def test_a_shell_is_renamed(terminal: Page, shot: Callable[[Page, str], None]) -> None:
    terminal.get_by_title("Rename this shell").click()
    shot(terminal, "terminal-rename")
    terminal.get_by_label("Name of this shell").fill("web server")
    terminal.get_by_role("button", name="Rename").click()
    shells = terminal.get_by_role("navigation", name="Shells")
    expect(shells.get_by_role("link", name="web server")).to_be_visible()
