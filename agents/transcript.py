"""The chat as people see it: events folded into a page, or sent as changes.

A page and a socket draw from the same events with the same templates, so that
a page made now and a page made earlier that followed the socket are equal.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, cast

from django.template.loader import render_to_string
from django.utils.safestring import mark_safe

from kode_web.teams import access
from kode_web.teams.access import May, Person
from sandboxes.models import Terminal

from . import model
from .models import Agent, AgentEvent, ToolCall

ITEMS = "agents/_items.html"
# Fixed places of the page that are drawn anew from the agent's row.
PLACES = {
    "state": ("head", "composer"),
    "todos": ("todos",),
    "queue": ("queue",),
    "usage": ("usage",),
    "sandbox": ("head", "pane"),
}
BATCH = 500


class Change(TypedDict, total=False):
    """One change of the page, as the browser gets it.

    `put` replaces the element `id` by `html`, or appends it to `into` when it
    is not there. `text` appends `d` to it if it has exactly `at` characters
    so far, of which `n` are new.
    """

    op: str
    id: str
    into: str
    html: str
    at: int
    n: int
    d: str


@dataclass
class Item:
    """One entry of the chat: a person's message, a step of the agent, a note."""

    kind: str
    id: str
    at: datetime
    data: dict[str, Any]
    thought: str = ""
    text: str = ""
    html: str = ""
    is_open: bool = True
    calls: list[ToolCall] = field(default_factory=list)

    @property
    def choice(self) -> model.Choice:
        """The model that answered."""
        return model.Choice(self.data.get("model", ""))


class Scribe:
    """Draws one agent for one person."""

    def __init__(self, agent: Agent, user: Person) -> None:
        """Rights are those of now; a socket makes a new scribe at each read."""
        rights = access.rights(user, agent)
        self.agent, self._calls = agent, dict[str, ToolCall]()
        self.context: dict[str, Any] = {
            "agent": agent,
            "can_drive": May.DRIVE in rights and agent.is_alive,
            "can_manage": May.MANAGE in rights and agent.is_alive,
            "choice": model.choose(agent.template.get("model", "")),
        }

    def page(self) -> dict[str, Any]:
        """What the page's template needs: the chat so far and its last seq."""
        events = list(self.agent.events.filter(seq__lte=self.agent.seq_head))
        events.sort(key=lambda event: event.seq)
        self._read_calls(events)
        pieces = _outputs(events)
        for call in self._calls.values():
            call.output = call.output if call.is_over else pieces.get(call.code, "")
        return {
            **self.context,
            **self._places(),
            "items": self._fold(events),
            "seq": self.agent.seq_head,
        }

    def changes(self, since: int) -> tuple[int, list[Change]]:
        """What happened after `since`, at most BATCH events, and the new cursor."""
        rows = self.agent.events.filter(seq__gt=since).order_by("seq")
        events = list(rows[:BATCH])
        self._read_calls(events)
        changes: list[Change] = []
        drawn: set[str] = set()
        for event in events:
            changes += self._change(event, drawn)
        return (events[-1].seq if events else since), changes

    def _change(self, event: AgentEvent, drawn: set[str]) -> list[Change]:
        """The changes of one event; `drawn` are places that are up to date."""
        data = event.data
        match event.type:
            case "text" | "think":
                return [_text(f"{event.type}-{data['step']}", data)]
            case "output":
                return [_text(f"output-{data['call']}", data)]
            case "answer":
                item = _answered(_item(event, f"step-{data['step']}"), data)
                return [
                    self._put(f"thought-{data['step']}", "thought", item=item),
                    self._put(f"text-{data['step']}", "answer", item=item),
                ]
            case "call":
                return self._call(data, drawn)
            case "user" | "step" | "note":
                item = _item(event, _item_id(event))
                return [self._put(item.id, event.type, into="chat", item=item)]
        places = [place for place in PLACES[event.type] if place not in drawn]
        drawn.update(places)
        return [self._put(place, place, **self._places()) for place in places]

    def _call(self, data: dict[str, Any], drawn: set[str]) -> list[Change]:
        code = data["call"]
        if code in drawn or code not in self._calls:
            return []
        drawn.add(code)
        call = self._calls[code]
        if not call.is_over:
            call.output = ""
        into = f"calls-{data['step']}"
        return [self._put(f"call-{code}", "call", into=into, call=call)]

    def _put(self, id: str, part: str, *, into: str = "", **more: Any) -> Change:
        html = render_to_string(f"{ITEMS}#{part}", {**self.context, **more})
        return {"op": "put", "id": id, "into": into, "html": html.strip()}

    def _places(self) -> dict[str, Any]:
        """What the fixed places show beside the agent's row."""
        sandbox = self.agent.sandbox
        terminal = (
            Terminal.objects.filter(sandbox=sandbox, closed_at=None).first()
            if sandbox is not None and sandbox.is_running
            else None
        )
        return {
            "sandbox": sandbox,
            "terminal": terminal,
            "queued": list(self.agent.queued.select_related("author")),
        }

    def _read_calls(self, events: Iterable[AgentEvent]) -> None:
        codes = {event.data["call"] for event in events if event.type == "call"}
        rows = ToolCall.objects.filter(agent=self.agent, code__in=codes)
        found = rows.select_related("decided_by")
        self._calls = {call.code: call for call in found}

    def _fold(self, events: list[AgentEvent]) -> list[Item]:
        """The chat's entries, in the order in which they first appeared."""
        items: dict[str, Item] = {}
        placed: set[str] = set()
        for event in events:
            data = event.data
            if event.type in ("user", "step", "note"):
                item = _item(event, _item_id(event))
                items[item.id] = item
            elif (item := cast("Item", items.get(f"step-{data.get('step')}"))) is None:
                continue
            elif event.type == "text":
                item.text += data["d"]
            elif event.type == "think":
                item.thought += data["d"]
            elif event.type == "answer":
                _answered(item, data)
            elif event.type == "call" and data["call"] not in placed:
                placed.add(data["call"])
                item.calls.append(self._calls[data["call"]])
        return list(items.values())


def _text(id: str, data: dict[str, Any]) -> Change:
    size = len(data["d"])
    return {"op": "text", "id": id, "at": data["at"], "n": size, "d": data["d"]}


def _item_id(event: AgentEvent) -> str:
    if event.type == "step":
        return f"step-{event.data['step']}"
    return f"{event.type}-{event.seq}"


def _item(event: AgentEvent, id: str) -> Item:
    return Item(kind=event.type, id=id, at=event.at, data=event.data)


def _answered(item: Item, data: dict[str, Any]) -> Item:
    # The writer cleaned it; see `markdown`.
    item.data, item.text, item.html = data, data["text"], mark_safe(data["html"])
    item.thought, item.is_open = data["thought"], False
    return item


def _outputs(events: Iterable[AgentEvent]) -> dict[str, str]:
    """Output so far of the commands that still run."""
    outputs: dict[str, str] = {}
    for event in events:
        if event.type == "output":
            code = event.data["call"]
            outputs[code] = outputs.get(code, "") + event.data["d"]
    return outputs


def read(agent_code: str, user: Person, since: int) -> tuple[int, list[Change]]:
    """What a socket sends next. Raises Http404 when the person may not look."""
    agent = access.get(user, Agent, agent_code)
    return Scribe(agent, user).changes(since)
