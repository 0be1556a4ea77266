"""Quotas: counted and reserved here and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import models, transaction

from .models import Team


@dataclass
class QuotaExceeded(Exception):
    """A limit is reached; names the limit and what uses it.

    `held` are the rows that use it up, idle first, for the page of the refusal.
    """

    team: Team
    what: str
    used: int
    limit: int
    held: list[models.Model]

    status = 429

    def __str__(self) -> str:
        return (
            f"{self.team} already has {self.used} of {self.limit} {self.what}. "
            "Pause or dispose one, then try again."
        )


def reserve[T](
    team: Team,
    *,
    what: str,
    holding: Callable[[], models.QuerySet[Any]],
    limit: int,
    make: Callable[[], T],
) -> T:
    """Do what uses a quota, or raise QuotaExceeded.

    The team's row is locked while `holding` is counted and `make` runs, so
    parallel requests of any number of processes cannot pass the limit together.
    """
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)
        used = holding().count()
        if used >= limit:
            raise QuotaExceeded(team, what, used, limit, list(holding()[:10]))
        return make()
