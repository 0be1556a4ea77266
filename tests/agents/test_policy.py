"""What runs by itself, what a person must allow, and what never goes."""

import pytest

from agents.models import Mode
from agents.policy import Decision, Lists, decision

NONE = Lists()


@pytest.mark.parametrize(
    ("mode", "tool", "expected"),
    [
        (Mode.AUTO, "bash_run", Decision.ALLOW),
        (Mode.AUTO, "fs_write", Decision.ALLOW),
        (Mode.APPROVAL, "bash_run", Decision.ASK),
        (Mode.APPROVAL, "fs_write", Decision.ALLOW),
        (Mode.APPROVAL, "fs_read", Decision.ALLOW),
        (Mode.APPROVAL, "todo_write", Decision.ALLOW),
        (Mode.READONLY, "fs_read", Decision.ALLOW),
        (Mode.READONLY, "todo_read", Decision.ALLOW),
        (Mode.READONLY, "fs_write", Decision.DENY),
        (Mode.READONLY, "bash_run", Decision.DENY),
        (Mode.READONLY, "something_new", Decision.DENY),
        ("a mode of tomorrow", "bash_run", Decision.DENY),
    ],
)
def test_modes(mode: str, tool: str, expected: Decision) -> None:
    assert decision(tool, mode, NONE) == expected


@pytest.mark.parametrize("mode", Mode.values)
def test_deny_wins_over_all(mode: str) -> None:
    names = frozenset({"fs_read"})
    lists = Lists(require=names, allow=names, deny=names)
    assert decision("fs_read", mode, lists) == Decision.DENY


@pytest.mark.parametrize("mode", Mode.values)
def test_require_asks_in_every_mode(mode: str) -> None:
    lists = Lists(require=frozenset({"fs_write"}), allow=frozenset({"fs_write"}))
    assert decision("fs_write", mode, lists) == Decision.ASK


def test_allow_frees_a_command_in_approval_mode_alone() -> None:
    lists = Lists(allow=frozenset({"bash_run"}))
    assert decision("bash_run", Mode.APPROVAL, lists) == Decision.ALLOW
    assert decision("bash_run", Mode.READONLY, lists) == Decision.DENY
