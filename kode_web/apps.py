"""The project itself as an app, for its checks."""

from django.apps import AppConfig
from django.core import checks


class KodeWebConfig(AppConfig):
    """Registers what must hold before anything starts."""

    name = "kode_web"

    def ready(self) -> None:
        """Let `manage.py check` find our checks."""
        from kode_web.checks import run

        checks.register(run)
