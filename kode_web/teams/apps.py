"""The app of people, teams, rights, quotas and secrets."""

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


class TeamsConfig(AppConfig):
    name = "kode_web.teams"
    label = "teams"

    def ready(self) -> None:
        """Follow sign-ins."""
        from . import accounts

        user_logged_in.connect(accounts.welcome, dispatch_uid="teams.welcome")
