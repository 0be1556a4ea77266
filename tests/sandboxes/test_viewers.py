"""What is shown of files, and what is not, whatever they hold."""

import base64
import json

import pytest

from sandboxes import viewers

PNG = base64.b64encode(b"\x89PNG\r\n").decode()


@pytest.mark.parametrize(
    ("name", "head", "views"),
    [
        ("a.py", b"x = 1", ["text", "hex"]),
        ("README.md", b"# Hi", ["markdown", "text", "hex"]),
        ("n.ipynb", b"{}", ["notebook", "text", "hex"]),
        ("n.ipynb", b"\0", ["hex"]),
        ("a.pdf", b"%PDF-1.7", ["pdf", "hex"]),
        ("a.pdf", b"<script>", ["text", "hex"]),
        ("a.PNG", b"\x89PNG", ["image", "hex"]),
        ("a.svg", b"<svg/>", ["image", "text", "hex"]),
        ("Makefile", b"all:", ["text", "hex"]),
        ("cut", "é".encode()[:1], ["text", "hex"]),
        ("latin", b"\xe9t\xe9", ["hex"]),
        ("empty", b"", ["text", "hex"]),
    ],
)
def test_how_a_file_is_seen(name: str, head: bytes, views: list[str]) -> None:
    assert viewers.views_of(name, head) == views


def test_a_dump() -> None:
    rows = viewers.hex_rows(b"GIF89a\0\xff" + bytes(10), 4096)
    assert rows[0][0] == "00001000"
    assert rows[0][1].startswith("47 49 46 38 39 61 00 ff")
    assert rows[0][2] == "GIF89a.........."
    assert rows[1][2] == ".."
    assert viewers.hex_rows(b"", 0) == []


def book(*cells: object) -> viewers.Notebook:
    made = viewers.notebook(json.dumps({"cells": list(cells)}).encode())
    assert made is not None
    return made


def output(**what: object) -> viewers.Output:
    cell = {"cell_type": "code", "source": ["x"], "outputs": [what]}
    return book(cell).cells[0].outputs[0]


def test_a_notebook_with_its_outputs() -> None:
    shown = book(
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "1 + 1", "execution_count": 3, "outputs": []},
        {"cell_type": "raw", "source": "raw"},
    ).cells
    assert "<h1>Title</h1>" in shown[0].html
    assert (shown[1].source, shown[1].number) == ("1 + 1", 3)
    assert (shown[2].kind, shown[2].source) == ("raw", "raw")
    assert output(output_type="stream", text=["a\n", "b"]).content == "a\nb"
    error = output(output_type="error", traceback=["\x1b[31mValueError\x1b[0m: no"])
    assert (error.kind, error.content) == ("error", "ValueError: no")
    data = {"image/png": PNG, "text/plain": "<Figure>"}
    image = output(output_type="display_data", data=data)
    assert (image.kind, image.content) == ("image", f"data:image/png;base64,{PNG}")


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script><table><tr><td>1</td></tr></table>",
        "<table><tr><td onclick=x()>1</td></tr></table><img src=//evil>",
        '<table><tr><td><a href="https://evil.test">1</a></td></tr></table>',
        "<table style='background:url(//evil)'><tr><td>1</td></tr></table>",
    ],
)
def test_tables_are_cleaned(html: str) -> None:
    shown = output(output_type="execute_result", data={"text/html": html})
    assert shown.kind == "html"
    assert "<td>1</td>" in shown.content
    for bad in ("script", "alert", "onclick", "evil", "style"):
        assert bad not in shown.content


def test_html_without_a_table_falls_back_to_text() -> None:
    data = {"text/html": "<iframe src=x></iframe>", "text/plain": "plain"}
    shown = output(output_type="execute_result", data=data)
    assert (shown.kind, shown.content) == ("text", "plain")


@pytest.mark.parametrize("image", ['"><script>', "not base64!", "a" * 5, 7, None])
def test_an_image_that_is_none_is_not_shown(image: object) -> None:
    shown = output(output_type="display_data", data={"image/png": image})
    assert shown.kind == "text"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"cells": 1}',
        b"[" * 100_000,
        b'{"cells": [',
        b"\xff",
        b'"' + b"x" * 100,
    ],
)
def test_what_is_no_notebook(data: bytes) -> None:
    assert viewers.notebook(data) is None


def test_odd_cells_are_left_out_or_empty() -> None:
    odd = [1, None, {"cell_type": "code", "outputs": "x", "source": {}}, {"source": 3}]
    cells = book(*odd).cells
    assert [cell.source for cell in cells] == ["", ""]


def test_a_large_notebook_is_cut() -> None:
    many = book(*[{"cell_type": "raw", "source": "x"}] * (viewers.MAX_CELLS + 1))
    assert (len(many.cells), many.is_cut) == (viewers.MAX_CELLS, True)
    long = output(output_type="stream", text="x" * 100_000).content
    assert len(long) < viewers.MAX_OUTPUT + 10
