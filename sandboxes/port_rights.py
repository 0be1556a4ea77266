"""Who may open which port of a sandbox, and who may change that."""

from collections.abc import MutableMapping
from typing import Any

from kode_web.teams import access
from kode_web.teams.access import May, Person
from kode_web.teams.models import User

from .errors import Invalid, NotReady
from .models import PortShare, Sandbox
from .steps import record

# Below it a preview host has no name; the helper inside every sandbox is nobody's.
LOWEST, HIGHEST = 1024, 65535
HIDDEN = frozenset({49983})
PRIVATE = "private"
# In the session: the sandboxes of others whose previews were opened on purpose.
KNOWN, MAX_KNOWN = "previews", 200
# Who sees it -> how it is said.
WORDS = {PRIVATE: "Private", "team": "Team", "public": "Public"}


def can_open(port: int) -> bool:
    """Whether a port can have a preview at all."""
    return LOWEST <= port <= HIGHEST and port not in HIDDEN


def may_open(user: Person, sandbox: Sandbox, port: int) -> bool:
    """Whether the person may: its owner, who manages it, and whom it is shared with."""
    rights = access.rights(user, sandbox)
    if May.MANAGE in rights:
        return True
    return May.VIEW in rights and sandbox.shared_ports.filter(port=port).exists()


def is_public(sandbox: Sandbox, port: int) -> bool:
    """Whether anybody may."""
    public = PortShare.Visibility.PUBLIC
    return sandbox.shared_ports.filter(port=port, visibility=public).exists()


def is_known(session: MutableMapping[str, Any], user: Person, sandbox: Sandbox) -> bool:
    """Whether the person knows whose code a preview of the sandbox shows.

    `session` is that of his browser: he is asked once for each sandbox of another.
    """
    return sandbox.owner_id == user.pk or sandbox.code in session.get(KNOWN, [])


def make_known(session: MutableMapping[str, Any], sandbox: Sandbox) -> None:
    """He has been told."""
    session[KNOWN] = [*session.get(KNOWN, [])[-MAX_KNOWN:], sandbox.code]


def share(user: User, sandbox: Sandbox, port: int, visibility: str) -> None:
    """Let others open a port, or nobody else any more. Raises Invalid, NotReady."""
    if visibility not in WORDS or not can_open(port):
        raise Invalid("A port from 1024 on is private, the team's or public.")
    if not sandbox.is_running:
        raise NotReady(f"This sandbox is {sandbox.state}. Resume it first.")
    known = sandbox.shared_ports.filter(port=port)
    before = known.values_list("visibility", flat=True).first() or PRIVATE
    if visibility == before:
        return
    if visibility == PRIVATE:
        known.delete()
    else:
        PortShare.objects.update_or_create(
            sandbox=sandbox,
            port=port,
            defaults={"visibility": visibility, "set_by": user},
        )
    record(sandbox, "port.shared", actor=user, port=port, visibility=visibility)
