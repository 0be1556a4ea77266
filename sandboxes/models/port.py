"""Who sees the ports of a sandbox."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from kode_web.teams.models import User

from .sandbox import Sandbox


class PortShare(models.Model):
    """A port that others may open; without a row it is its owner's alone.

    It ends when the sandbox is resumed: what listens there then may be another thing.
    """

    class Visibility(models.TextChoices):
        """Who may open it."""

        TEAM = "team", "Team"
        PUBLIC = "public", "Public"

    sandbox = models.ForeignKey(
        Sandbox, on_delete=models.CASCADE, related_name="shared_ports"
    )
    port = models.PositiveIntegerField()
    visibility = models.CharField(max_length=6, choices=Visibility.choices)
    set_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    set_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["sandbox", "port"], name="one_share_per_port"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.port} {self.visibility}"
