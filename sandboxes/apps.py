"""The app of a team's sandboxes."""

from django.apps import AppConfig


class SandboxesConfig(AppConfig):
    name = "sandboxes"
