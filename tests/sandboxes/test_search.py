"""Searching a sandbox's files by name and by text."""

import pytest

from sandboxes import gateway, search
from sandboxes.errors import Invalid

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def folder(sandbox):
    made = gateway.run(
        sandbox,
        "mkdir -p ~/d/sub ~/d/node_modules && cd ~/d && echo 'Hello wörld' > One.txt; "
        "printf 'a\\nb hello\\nhello [x]*\\n' > sub/two.py; "
        "echo hello > node_modules/x; "
        "printf 'hello\\0' > bin; ln -s . loop; mkfifo p; touch $'odd\\nname' 's*r'; "
        "truncate -s 10G sparse",
    )
    assert made.exit_code == 0, made.stderr
    return sandbox


def names(found: search.Found) -> list[str]:
    return [hit.path.removeprefix("/home/user/d/") for hit in found.hits]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("one", ["One.txt"]),
        ("One", ["One.txt"]),
        ("ONE", []),
        ("two.", ["sub/two.py"]),
        ("s*", ["s*r"]),
        ("[", []),
        ("odd", ["odd\nname"]),
        ("sub", ["sub"]),
        ("node_mod", []),
        ("$(id)", []),
        ("'", []),
    ],
)
def test_names(folder, query: str, expected: list[str]) -> None:
    assert names(search.by_name(folder, "d", query)) == expected


def test_text_with_its_lines(folder) -> None:
    found = search.by_text(folder, "d", "hello")
    assert names(found) == ["One.txt", "sub/two.py"]
    assert found.hits[1].lines == [(2, "b hello"), (3, "hello [x]*")]
    assert not found.is_cut


@pytest.mark.parametrize(
    ("query", "expected"),
    [("[x]*", ["sub/two.py"]), ("-e", []), ("wörld", ["One.txt"]), ("$(id)", [])],
)
def test_text_is_taken_as_it_is(folder, query: str, expected: list[str]) -> None:
    assert names(search.by_text(folder, "d", query)) == expected


def test_much_is_cut_and_said(sandbox) -> None:
    gateway.run(sandbox, "mkdir ~/d && cd ~/d && seq 3000 | xargs touch")
    found = search.by_name(sandbox, "d", "1")
    assert (len(found.hits), found.is_cut) == (search.MAX_FILES, True)


def test_what_takes_too_long_is_stopped_and_said(folder, monkeypatch) -> None:
    monkeypatch.setattr(search, "SEARCH_S", 1)
    slow = "find() { sleep 30; }; export -f find"
    gateway.run(folder, f"echo {slow!r} > ~/.bash_profile")
    assert search.by_name(folder, "d", "x").is_cut


@pytest.mark.parametrize("query", ["", "  ", "a\nb", "a\0b", "x" * 201])
def test_what_cannot_be_searched_for_is_refused(sandbox, query: str) -> None:
    with pytest.raises(Invalid):
        search.by_name(sandbox, "d", query)
    with pytest.raises(Invalid):
        search.by_text(sandbox, "d", query)
