"""Agents in the admin: what they are and how they fare, nothing they said."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from .models import Agent, AgentTemplate, Run

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    # Generic to the type checker alone.
    ModelAdmin = admin.ModelAdmin


class ReadOnly(ModelAdmin):
    """Rows that only the program writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False


@admin.register(AgentTemplate)
class AgentTemplateAdmin(ModelAdmin):
    """Templates, built in or a team's."""

    list_display = ("name", "slug", "version", "team", "mode")
    list_filter = ("mode",)
    search_fields = ("name", "slug")
    readonly_fields = ("code", "created_at")


@admin.register(Agent)
class AgentAdmin(ReadOnly):
    """Agents, without their chats."""

    list_display = ("name", "team", "owner", "state", "used_at")
    list_filter = ("state", "mode")
    search_fields = ("name", "code")
    fields = ("code", "name", "team", "owner", "state", "mode", "sandbox", "created_at")


@admin.register(Run)
class RunAdmin(ReadOnly):
    """Runs and who works on them, without prompts."""

    list_display = ("pk", "agent", "kind", "state", "attempt", "worker", "created_at")
    list_filter = ("state", "kind")
    fields = (
        *("agent", "kind", "state", "attempt", "worker", "lease_until"),
        *("error", "created_at", "started_at", "ended_at"),
    )
