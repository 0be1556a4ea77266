"""How a tool call is worded on its card."""

import json

from django import template

from agents.journal import STOPPED
from agents.models import ToolCall

register = template.Library()

VERBS = {
    "bash_run": "Ran",
    "fs_read": "Read",
    "fs_write": "Wrote",
    "todo_read": "Read the list",
    "todo_write": "Set the list",
}
INTENTS = {"bash_run": "runs a command", "fs_write": "writes a file"}
ICONS = {"bash_run": "terminal", "fs_read": "file", "fs_write": "diff"}


@register.filter
def verb(call: ToolCall) -> str:
    """What it did."""
    return VERBS.get(call.name, call.name)


@register.filter
def intent(call: ToolCall) -> str:
    """What it would do."""
    return INTENTS.get(call.name, call.name)


@register.filter
def icon(call: ToolCall) -> str:
    """The name of its icon."""
    return ICONS.get(call.name, "exec")


@register.filter
def was_stopped(call: ToolCall) -> bool:
    """Whether it was cut off, which is no failure of its own."""
    return call.state == ToolCall.State.FAILED and call.result == STOPPED


@register.filter
def subject(call: ToolCall) -> str:
    """What it does it to, in one line."""
    match call.name:
        case "bash_run":
            return str(call.args.get("cmd", "")).strip().partition("\n")[0]
        case "fs_read" | "fs_write":
            return str(call.args.get("path", ""))
        case "todo_write":
            todos = call.args.get("todos")
            return f"{len(todos) if isinstance(todos, list) else 0} items"
    return ""


@register.filter
def asked_for(call: ToolCall) -> str:
    """All that a person must see before he decides."""
    match call.name:
        case "bash_run":
            return str(call.args.get("cmd", ""))
        case "fs_write":
            return f"{call.args.get('path', '')}\n\n{call.args.get('content', '')}"
    return json.dumps(call.args, indent=2, ensure_ascii=False)
