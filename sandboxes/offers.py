"""What a new sandbox of a team can be made from, and where."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection

from kode_web.teams.models import Team

from . import gateway
from .errors import SandboxError
from .gateway import Backend

# All backends are asked at once; the page does not wait longer for the slowest.
PATIENCE_S = 2.5
BASE = "base"


@dataclass(frozen=True)
class Offers:
    """The backends of a team, and the templates of those that answered."""

    backends: list[Backend]
    default: str
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def has_local(self) -> bool:
        """Whether one of them shares the kernel of a machine."""
        return any(one.is_local for one in self.backends)

    @property
    def templates(self) -> list[str]:
        """All names, `base` first; it is there even when every backend is silent."""
        every = {name for names in self.names.values() for name in names} | {BASE}
        return sorted(every, key=lambda name: (name != BASE, name))

    def has(self, backend: str, template: str) -> bool:
        """Whether it may be there: a silent backend may have anything."""
        known = self.names.get(backend or self.default)
        return known is None or template == BASE or template in known

    def places(self, template: str) -> list[str]:
        """The titles of the backends that list it."""
        return [
            b.title for b in self.backends if template in self.names.get(b.name, [])
        ]


def of_team(team: Team) -> Offers:
    """What the team may use now."""
    usable = list(gateway.backends_of(team).values())
    default = gateway.choose(team).name if usable else ""
    names: dict[str, list[str]] = {}

    def ask(backend: Backend) -> None:
        try:
            rows = gateway.templates(backend.name)
        except SandboxError:
            return
        names[backend.name] = [
            str((row.get("aliases") or [row.get("templateID")])[0]) for row in rows
        ]

    in_threads(ask, usable, PATIENCE_S)
    return Offers(usable, default, dict(names))


def in_threads[T](call: Callable[[T], None], items: list[T], patience_s: float) -> None:
    """Call for each in a thread of its own, and wait for a moment at most."""

    def run(item: T) -> None:
        try:
            call(item)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in items]
    for thread in threads:
        thread.start()
    until = time.monotonic() + patience_s
    for thread in threads:
        thread.join(max(0, until - time.monotonic()))
