"""Sandboxes for the administrator: read only, and without their variables."""

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from . import backend_admin
from .models import Event, Sandbox, Terminal

__all__ = ["backend_admin"]


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows change by the product's own actions alone."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds rows here."""
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: models.Model | None = None
    ) -> bool:
        """Nobody changes rows here."""
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: models.Model | None = None
    ) -> bool:
        """Nobody deletes rows here: a machine may hang on one."""
        return False


@admin.register(Sandbox)
class SandboxAdmin(ReadOnly):
    list_display = ("name", "state", "team", "owner", "backend", "used_at")
    list_filter = ("state", "backend")
    search_fields = ("name", "code", "sandbox_id")
    exclude = ("envs",)


@admin.register(Terminal)
class TerminalAdmin(ReadOnly):
    list_display = ("name", "sandbox", "opened_by", "opened_at", "closed_at")


@admin.register(Event)
class EventAdmin(ReadOnly):
    list_display = ("at", "kind", "sandbox", "actor")
    list_filter = ("kind",)
