"""Accounts of base trees, remembered so that a first command need not ask."""

import logging

from .contract import BoxGone
from .envd.agent import Account, AgentLost
from .sandbox import Sandbox

logger = logging.getLogger(__name__)

LEARNED_USERS = ("", "user", "root")


class Accounts:
    """What is known of each tree. A snapshot's accounts may be others."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Account]] = {}

    def give(self, sandbox: Sandbox) -> bool:
        """Tell a new sandbox its accounts; False where they are to be learned."""
        if sandbox.record.snapshot:
            return True
        known = self._known.get(sandbox.record.base_tree)
        if known:
            sandbox.services.agent.know(known)
        return known is not None

    async def learn(self, sandbox: Sandbox) -> None:
        """Ask the first, untouched sandbox of a tree."""
        learned = {}
        for name in LEARNED_USERS:
            try:
                learned[name] = await sandbox.services.agent.user(name)
            except (LookupError, OSError, AgentLost, BoxGone) as problem:
                logger.info("account %r is not known: %r", name, problem)
        if not sandbox.services.agent.touched:
            self._known[sandbox.record.base_tree] = learned
