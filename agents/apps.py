"""The app of agents that work in sandboxes."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AgentsConfig(AppConfig):
    name = "agents"

    def ready(self) -> None:
        """Listen: to the end of a sandbox, and to new tables."""
        from sandboxes.signals import disposing

        disposing.connect(_stop_agents, dispatch_uid="agents.stop")
        post_migrate.connect(_install, sender=self, dispatch_uid="agents.builtin")


def _stop_agents(sender: object, **signal: Any) -> None:
    from .actions import stop_in

    stop_in(signal["sandbox"])


def _install(sender: object, **signal: Any) -> None:
    from .builtin import install

    install()
