"""What an agent may do by itself, what a person must allow, and what never goes.

This is the one place that decides it. It knows tool names and modes alone; who
the person is and what he may do is `teams.access`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .models import Mode


class Decision(StrEnum):
    """The answer for one tool call."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


# Tools that change nothing outside the chat: free in every mode, and safe to
# run again after a crash.
READS = frozenset({"fs_read", "todo_read", "todo_write"})
# Tools that mode `approval` asks for; files are changed without asking.
ASKED = frozenset({"bash_run"})


@dataclass(frozen=True)
class Lists:
    """Tool names of a template; `deny` wins over `require`, that over `allow`."""

    require: frozenset[str] = field(default_factory=frozenset)
    allow: frozenset[str] = field(default_factory=frozenset)
    deny: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, template: dict[str, Any]) -> "Lists":
        """The lists of an agent's template snapshot."""
        return cls(
            frozenset(template.get("require", ())),
            frozenset(template.get("allow", ())),
            frozenset(template.get("deny", ())),
        )


def decision(tool: str, mode: str, lists: Lists) -> Decision:
    """Whether a call of `tool` runs, waits for a person, or is refused.

    An unknown mode is treated as `readonly`, an unknown tool as one that changes
    things.
    """
    if tool in lists.deny:
        return Decision.DENY
    if tool in lists.require:
        return Decision.ASK
    if tool in READS:
        return Decision.ALLOW
    if mode == Mode.AUTO:
        return Decision.ALLOW
    if mode == Mode.APPROVAL:
        asks = tool in ASKED and tool not in lists.allow
        return Decision.ASK if asks else Decision.ALLOW
    return Decision.DENY


def why_denied(tool: str, mode: str, lists: Lists) -> str:
    """What the model is told of a refusal."""
    if tool in lists.deny:
        return f"{tool} is not allowed for this agent. Do without it."
    return (
        f"{tool} is refused: this agent is in {mode} mode and may only read. "
        "Tell the person what you would change."
    )
