"""The app of agents that work in sandboxes."""

from django.apps import AppConfig


class AgentsConfig(AppConfig):
    name = "agents"
