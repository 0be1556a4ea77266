"""Files in a real browser: the tree, what changes by itself, uploads, viewers."""

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from .conftest import Product, screen, type_line

Shot = Callable[[Page, str], None]
# The smallest PDF with a word on it; its offsets are repaired by the reader.
PDF = """%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R
/Resources<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj
4 0 obj<</Length 44>>stream
BT /F1 24 Tf 40 100 Td (Hello there) Tj ET
endstream endobj
trailer<</Root 1 0 R>>
%%EOF
"""
BOOK = {
    "nbformat": 4,
    "metadata": {"kernelspec": {"language": "python"}},
    "cells": [
        {"cell_type": "markdown", "source": ["# Sales\n", "by *month*"]},
        {
            "cell_type": "code",
            "execution_count": 1,
            "source": "print('seen')",
            "outputs": [{"output_type": "stream", "text": ["seen\n"]}],
        },
    ],
}
DROP = """([element, names]) => {
  const carried = new DataTransfer();
  for (const [name, text] of names) carried.items.add(new File([text], name));
  const how = { dataTransfer: carried, bubbles: true };
  element.dispatchEvent(new DragEvent("drop", how));
}"""


@pytest.fixture
def shell(page: Page, product: Product) -> Iterator[Page]:
    """A page on the terminal of a sandbox of its own, disposed at the end."""
    page.goto(product.url)
    page.get_by_role("button", name="Just a terminal").click()
    page.wait_for_url(re.compile(r"/sandboxes/[0-9a-f]{32}/"))
    type_line(page, "echo re''ady")
    expect(screen(page)).to_contain_text("ready")
    first = page.url
    yield page
    page.goto(first)
    page.get_by_role("button", name="Dispose").click()
    page.get_by_role("dialog").get_by_role("button", name="Dispose").click()
    expect(page.get_by_text("ended").first).to_be_visible()


def run(page: Page, command: str) -> None:
    """Run something in a second tab's terminal of the same sandbox."""
    url = re.match(r".*/sandboxes/[0-9a-f]{32}/", page.url)
    assert url
    other = page.context.new_page()
    other.goto(url[0])
    type_line(other, f"{command}; echo do''ne")
    expect(screen(other)).to_contain_text("done")
    other.close()


def test_the_tree_and_the_folder_follow_what_happens(shell: Page, shot: Shot) -> None:
    type_line(shell, "mkdir -p app/deep && echo one > app/deep/one.txt; echo ma''de")
    expect(screen(shell)).to_contain_text("made")
    shell.get_by_role("link", name="Files").click()
    tree = shell.get_by_role("navigation", name="Tree")
    tree.get_by_text("app", exact=True).click()
    tree.get_by_text("deep", exact=True).click()
    tree.get_by_text("one.txt").click()
    code = shell.get_by_role("region", name="one.txt")
    expect(code).to_contain_text("one")
    expect(shell).to_have_url(re.compile("/files/home/user/app/deep/one.txt"))
    expect(tree.get_by_role("link", name="one.txt")).to_have_attribute(
        "aria-current", "true"
    )
    run(shell, "echo changed > app/deep/one.txt; touch app/deep/two.txt app/new.py")
    expect(code).to_contain_text("changed")
    expect(tree.get_by_text("two.txt")).to_be_visible()
    expect(tree.get_by_text("new.py")).to_be_visible()
    shot(shell, "files-tree")
    shell.go_back()
    pane = shell.get_by_role("region", name="Files", exact=True)
    expect(pane.get_by_role("link", name="app/", exact=True)).to_be_visible()
    run(shell, "rm -r app; touch later")
    expect(pane.get_by_role("link", name="later", exact=True)).to_be_visible()
    expect(pane.get_by_role("link", name="app/", exact=True)).to_have_count(0)


def test_files_are_dropped_and_none_is_written_over(shell: Page, shot: Shot) -> None:
    shell.get_by_role("link", name="Files").click()
    pane = shell.get_by_role("region", name="Files", exact=True)
    expect(pane).to_be_visible()
    big = "x" * 20_000_000
    element = pane.element_handle()
    shell.evaluate(DROP, [element, [["big.txt", big], ["small.txt", "small"]]])
    panel = shell.get_by_role("status", name="Uploads")
    expect(panel).to_contain_text("in /home/user")
    expect(pane.get_by_role("link", name="big.txt", exact=True)).to_be_visible()
    expect(pane).to_contain_text("20 MB")
    element = pane.element_handle()
    shell.evaluate(DROP, [element, [["small.txt", "another"]]])
    expect(panel).to_contain_text("is there already")
    shot(shell, "files-upload-conflict")
    panel.get_by_role("button", name="Keep both").click()
    expect(pane.get_by_role("link", name="small (1).txt", exact=True)).to_be_visible()


def test_an_upload_goes_on_after_a_reload(shell: Page) -> None:
    shell.get_by_role("link", name="Files").click()
    pane = shell.get_by_role("region", name="Files", exact=True)
    # The second piece never arrives.
    pieces = []

    def cut(route) -> None:
        if route.request.method == "PATCH":
            pieces.append(route.request.headers["upload-offset"])
        route.abort() if len(pieces) > 1 else route.continue_()

    shell.route("**/uploads/*/", cut)
    send = """([element, size]) => {
      const carried = new DataTransfer();
      const file = new File(["y".repeat(size)], "slow.bin", { lastModified: 7 });
      carried.items.add(file);
      const how = { dataTransfer: carried, bubbles: true };
      element.dispatchEvent(new DragEvent("drop", how));
    }"""
    size = 20_000_000
    shell.evaluate(send, [pane.element_handle(), size])
    panel = shell.get_by_role("status", name="Uploads")
    expect(panel).to_contain_text(re.compile("4[0-9] %"))
    while len(pieces) < 2:
        shell.wait_for_timeout(100)
    shell.on("dialog", lambda dialog: dialog.accept())
    shell.reload()
    shell.unroute("**/uploads/*/")
    later = []
    shell.on(
        "request",
        lambda asked: (
            later.append(asked.headers.get("upload-offset"))
            if asked.method == "PATCH"
            else None
        ),
    )
    shell.evaluate(send, [pane.element_handle(), size])
    expect(pane.get_by_role("link", name="slow.bin", exact=True)).to_be_visible()
    assert later[0] == str(8 << 20)


def test_a_search_finds_names_and_lines(shell: Page, shot: Shot) -> None:
    type_line(shell, "mkdir src; printf 'a\\nneedle here\\n' > src/hay.py; echo ma''de")
    expect(screen(shell)).to_contain_text("made")
    shell.get_by_role("link", name="Files").click()
    shell.get_by_label("Search below this folder").fill("needle")
    shell.get_by_text("Text", exact=True).click()
    shell.get_by_role("button", name="Search", exact=True).click()
    expect(shell.get_by_text("src/hay.py")).to_be_visible()
    shot(shell, "files-search")
    shell.get_by_role("link", name="needle here").click()
    expect(shell.locator("li:target")).to_contain_text("needle here")


def test_rich_files_are_shown_as_what_they_are(shell: Page, shot: Shot) -> None:
    shell.get_by_role("link", name="Files").click()
    pane = shell.get_by_role("region", name="Files", exact=True)
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="50" height="50"><script>'
        'alert(1)</script><rect width="50" height="50" fill="green"/></svg>'
    )
    given = {
        "book.ipynb": json.dumps(BOOK),
        "notes.md": "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        "page.pdf": PDF,
        "shape.svg": svg,
        "raw.bin": "\0\1GIF",
    }
    shell.evaluate(DROP, [pane.element_handle(), list(given.items())])
    for name in given:
        expect(pane.get_by_role("link", name=name, exact=True)).to_be_visible()
    shell.on("dialog", lambda dialog: pytest.fail(f"ran: {dialog.message}"))
    tree = shell.get_by_role("navigation", name="Tree")
    tree.get_by_text("notes.md").click()
    expect(pane.get_by_role("heading", name="Title")).to_be_visible()
    expect(pane.get_by_role("cell", name="2")).to_be_visible()
    tree.get_by_text("book.ipynb").click()
    expect(pane.get_by_role("heading", name="Sales")).to_be_visible()
    expect(pane).to_contain_text("print('seen')")
    shot(shell, "files-notebook")
    tree.get_by_text("page.pdf").click()
    expect(pane.locator("canvas[data-drawn]")).to_be_visible()
    shot(shell, "files-pdf")
    tree.get_by_text("shape.svg").click()
    image = pane.get_by_role("img", name="shape.svg")
    expect(image).to_be_visible()
    assert image.evaluate("(one) => one.decode().then(() => one.naturalWidth)") == 50
    tree.get_by_text("raw.bin").click()
    expect(pane).to_contain_text("00 01 47 49 46")
    shot(shell, "files-hex")
    # Gone to by itself, the image is no page of ours that runs a script.
    url = re.sub(r"raw\.bin.*", "shape.svg?raw=1", shell.url)
    shell.goto(url)
    assert shell.evaluate("origin") == "null"
    shell.go_back()


def test_a_link_downloads_without_an_account(shell: Page, shot: Shot) -> None:
    type_line(shell, "echo shared > shared.txt; echo ma''de")
    expect(screen(shell)).to_contain_text("made")
    shell.get_by_role("link", name="Files").click()
    shell.get_by_role("link", name="shared.txt").first.click()
    shell.get_by_label("Move or rename").click()
    shell.get_by_role("link", name="A link for others").click()
    shell.get_by_role("button", name="Make a link").click()
    link = shell.get_by_text(re.compile("/sandboxes/links/")).inner_text()
    shot(shell, "files-link")
    guest = shell.context.browser.new_context()
    answer = guest.request.get(link)
    assert answer.text() == "shared\n"
    shell.get_by_role("button", name="Revoke").click()
    assert guest.request.get(link).status == 404
    guest.close()
