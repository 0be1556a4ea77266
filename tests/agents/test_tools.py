"""What tools show to people and to the model."""

import pytest

from agents import tools
from agents.models import ToolCall
from agents.tools import Output, todo_problem


class Kept:
    """Takes what would go to the event log."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, str]] = []

    def put(self, type: str, *, call: str, at: int, d: str) -> None:
        assert type == "output"
        self.pieces.append((at, d))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def output(kept: Kept) -> Output:
    return Output(kept, ToolCall(code="c" * 32))


def test_short_output_is_whole(output: Output, kept: Kept) -> None:
    output.add("one\n")
    output.add("two\n")
    assert output.for_model("exit code 0") == "one\ntwo\n[exit code 0]"
    assert kept.pieces == [(0, "one\n"), (4, "two\n")]


def test_long_output_keeps_both_ends(output: Output) -> None:
    output.add("begin " + "x" * 50_000)
    output.add("y" * 50_000 + " end")
    text = output.for_model("exit code 0")
    assert text.startswith("begin x")
    assert " end\n[exit code 0]" in text
    assert "[84010 characters left out]" in text


@pytest.mark.parametrize("piece", [1, 7, 3_999, 4_001, 30_000])
def test_the_cut_does_not_depend_on_the_pieces(kept: Kept, piece: int) -> None:
    whole = "".join(f"{n}\n" for n in range(10_000))
    output = Output(kept, ToolCall(code="c" * 32))
    for at in range(0, len(whole), piece):
        output.add(whole[at : at + piece])
    once = Output(kept, ToolCall(code="c" * 32))
    once.add(whole)
    assert output.for_model("x") == once.for_model("x")
    assert output.kept == whole


def test_people_get_no_more_than_the_bound(output: Output, kept: Kept) -> None:
    for _ in range(5):
        output.add("x" * 100_000)
    assert sum(len(text) for _, text in kept.pieces) == tools.KEPT_CHARS


def test_terminal_codes_stay_out(output: Output) -> None:
    output.add("\x1b[31mred\x1b[0m\r\n")
    assert output.kept == "red\n"


def test_a_terminal_code_in_two_pieces_stays_out(output: Output) -> None:
    for piece in ("a\x1b[3", "1mred\x1b", "[0m\r", "\nb"):
        output.add(piece)
    assert output.kept == "ared\nb"


@pytest.mark.parametrize(
    ("todos", "problem"),
    [
        ([("1", "pending"), ("2", "in_progress")], ""),
        ([("1", "pending"), ("1", "pending")], "id of its own"),
        ([("1", "in_progress"), ("2", "in_progress")], "At most one"),
        ([(str(n), "pending") for n in range(51)], "At most 50"),
    ],
)
def test_todos(todos: list[tuple[str, str]], problem: str) -> None:
    rows = [{"id": id, "title": "t", "status": status} for id, status in todos]
    found = todo_problem(rows)
    assert (problem in found) if problem else not found
