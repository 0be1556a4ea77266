"""What a person can jump to or do at once, by a few words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.urls import reverse

from agents.models import Agent
from kode_web.teams import access
from kode_web.teams.access import May
from kode_web.teams.models import User
from sandboxes.models import ALIVE, Sandbox, State

SHOWN = 6
LOOKED_AT = 100
ACTED_ON = 20
# What is done to a sandbox -> its icon, and the states that allow it.
VERBS: dict[str, tuple[str, tuple[State, ...]]] = {
    "pause": ("pause", (State.RUNNING,)),
    "extend": ("clock", (State.RUNNING,)),
    "resume": ("play", (State.PAUSED,)),
    "dispose": ("trash", tuple(state for state in ALIVE if state != State.KILLING)),
}


@dataclass(frozen=True)
class Hit:
    """One answer: a link, or with `posts` a form of one button.

    `state` is the shape beside it; without one there is `icon`.
    """

    words: str
    href: str
    icon: str = "right"
    state: str = ""
    hint: str = ""
    posts: bool = False
    field: str = ""


def find(user: User, text: str) -> list[tuple[str, list[Hit]]]:
    """Groups of hits by their heading; all words must be in a hit's words.

    Without words: what is always there, and what was used last.
    """
    words = text.lower().split()
    sandboxes = list(_rows(user, Sandbox, state__in=ALIVE))
    agents = list(_rows(user, Agent, ended_at=None))
    groups = [
        ("Do", [*_starts(user), *_deeds(user, sandboxes, words)]),
        ("Sandboxes", map(_sandbox, sandboxes)),
        ("Agents", map(_agent, agents)),
        ("Pages", _pages(user) if words else []),
    ]
    fitting = [(title, _fitting(hits, words)) for title, hits in groups]
    return [(title, hits) for title, hits in fitting if hits]


def _fitting(hits: Iterable[Hit], words: list[str]) -> list[Hit]:
    found = [h for h in hits if all(word in h.words.lower() for word in words)]
    return found[:SHOWN]


def _rows[M: (Sandbox, Agent)](
    user: User, model: type[M], **fields: object
) -> Iterator[M]:
    rows = access.visible(user, model).filter(**fields)
    yield from rows.select_related("team").order_by("-used_at")[:LOOKED_AT]


def _starts(user: User) -> list[Hit]:
    """Making something new; nothing for a mere viewer."""
    if not access.teams_to_create_in(user):
        return []
    home, posts = reverse("home"), True
    return [
        Hit("Just a terminal", home, "terminal", posts=posts, field="terminal"),
        Hit("New agent", reverse("agents:new"), "agent"),
        Hit("New sandbox", reverse("sandboxes:new"), "sandbox"),
    ]


def _deeds(user: User, sandboxes: list[Sandbox], words: list[str]) -> Iterator[Hit]:
    """What may be done now with the sandboxes used last.

    The first word must begin the verb: a name alone never does anything.
    """
    verbs = [verb for verb in VERBS if words and verb.startswith(words[0])]
    for row in sandboxes[:ACTED_ON] if verbs else []:
        if May.MANAGE not in access.rights(user, row):
            continue
        for verb in verbs:
            icon, states = VERBS[verb]
            if row.state in states:
                href = reverse(f"sandboxes:{verb}", args=[row.code])
                # Disposing asks first.
                posts, dots = (False, "…") if verb == "dispose" else (True, "")
                name = f"{verb.capitalize()} {row.name}{dots}"
                yield Hit(name, href, icon, posts=posts)


def _sandbox(row: Sandbox) -> Hit:
    href = reverse("sandboxes:detail", args=[row.code])
    return Hit(row.name, href, state=row.state, hint=str(row.team))


def _agent(row: Agent) -> Hit:
    href = reverse("agents:detail", args=[row.code])
    return Hit(row.name, href, state=row.shown_state[0], hint=row.shown_state[1])


def _pages(user: User) -> list[Hit]:
    pages = [
        Hit("Home", reverse("home"), "home"),
        Hit("Sandboxes", reverse("sandboxes:list"), "sandbox"),
        Hit("Agents", reverse("agents:list"), "agent"),
        Hit("Templates", reverse("templates"), "template"),
        Hit("Teams", reverse("teams:list"), "team"),
        Hit("Your account, password, second factor, theme", reverse("me"), "user"),
    ]
    if user.is_superuser:
        pages.append(Hit("Backends", reverse("sandboxes:backends"), "template"))
    if user.is_staff:
        pages.append(Hit("Administration", reverse("admin:index"), "settings"))
    return pages
