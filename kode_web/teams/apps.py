"""The app of people, teams, rights, quotas and secrets."""

from django.apps import AppConfig


class TeamsConfig(AppConfig):
    name = "kode_web.teams"
    label = "teams"
