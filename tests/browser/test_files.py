"""Files in a real browser: make one, edit it, meet somebody else's change, delete."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Product, screen, type_line

Shot = Callable[[Page, str], None]


@pytest.fixture
def folder(page: Page, product: Product) -> Iterator[Page]:
    """A page on the home folder of a sandbox of its own, disposed at the end."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "echo re''ady")
    expect(screen(page)).to_contain_text("ready")
    first = page.url
    page.get_by_role("link", name="Files").click()
    yield page
    page.goto(first)
    page.get_by_role("button", name="Dispose").click()
    page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
    expect(page.get_by_text("ended").first).to_be_visible()


def editor(page: Page) -> Locator:
    """Where the text is typed, once the script has put it in the field's place."""
    found = page.locator(".cm-content")
    expect(found).to_have_attribute("aria-label", re.compile("^Text of"))
    return found


def new_file(page: Page, name: str, text: str) -> None:
    page.get_by_label("New file or folder").click()
    page.get_by_label(re.compile("^Name in")).fill(name)
    page.get_by_role("button", name="New file").click()
    editor(page).fill(text)
    page.get_by_role("button", name="Create").click()


def test_a_file_is_made_edited_and_deleted(folder: Page, shot: Shot) -> None:
    new_file(folder, "note.txt", "first")
    code = folder.get_by_role("region", name="note.txt")
    expect(code).to_contain_text("first")
    folder.get_by_role("link", name="Edit").click()
    area = editor(folder)
    area.fill("second")
    shot(folder, "file-edit")
    area.press("Control+s")
    expect(code).to_contain_text("second")
    folder.get_by_label("Move or rename").click()
    folder.on("dialog", lambda dialog: dialog.accept())
    folder.get_by_role("button", name="Delete").click()
    expect(folder.get_by_text("note.txt")).to_have_count(0)
    expect(folder.get_by_label("New file or folder")).to_be_visible()


def test_nobody_writes_over_what_another_wrote(folder: Page, shot: Shot) -> None:
    new_file(folder, "shared.txt", "first")
    folder.get_by_role("link", name="Edit").click()
    other = folder.context.new_page()
    other.goto(folder.url)
    editor(other).fill("theirs")
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_role("region", name="shared.txt")).to_contain_text("theirs")
    other.close()
    editor(folder).fill("mine")
    folder.get_by_role("button", name="Save").click()
    expect(folder.get_by_role("alert")).to_contain_text("changed by somebody else")
    expect(editor(folder)).to_have_text("mine")
    expect(folder.get_by_label("Theirs, as it is now")).to_have_value("theirs")
    shot(folder, "file-conflict")
    folder.get_by_role("button", name="Save mine over it").click()
    expect(folder.get_by_role("region", name="shared.txt")).to_contain_text("mine")
