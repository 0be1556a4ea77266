"""What a new sandbox of a team can be made from, and where."""

from dataclasses import dataclass, field

from kode_web.teams.models import Team

from . import gateway
from .errors import SandboxError
from .gateway import Backend

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

    gateway.at_once(ask, usable)
    return Offers(usable, default, dict(names))
