"""What the reaper remembers from round to round."""

from typing import ClassVar

from django.db import models
from django.utils import timezone


class Lease(models.Model):
    """A task that one process at a time does: `holder`, until `until`."""

    name = models.CharField(max_length=40, primary_key=True)
    holder = models.CharField(max_length=64)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Orphan(models.Model):
    """A machine of ours that no row wants, since it was first seen so."""

    backend = models.CharField(max_length=20)
    sandbox_id = models.CharField(max_length=80)
    seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["backend", "sandbox_id"], name="one_sighting_per_machine"
            ),
        ]

    def __str__(self) -> str:
        return self.sandbox_id
