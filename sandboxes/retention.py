"""Records of ended sandboxes go when their team no longer wants them."""

import logging
from datetime import timedelta

from django.db.models import ProtectedError
from django.utils import timezone

from kode_web.teams.models import Team

from .models import Sandbox, State

logger = logging.getLogger(__name__)
# In a round: each takes its events, recordings and commands along.
AT_ONCE = 20


def run_once() -> None:
    """Delete some records that are older than their team keeps them.

    One whose snapshots are there, or made another sandbox, stays with them.
    """
    for team in Team.objects.exclude(keep_days=None):
        assert team.keep_days is not None
        late = timezone.now() - timedelta(days=team.keep_days)
        ended = Sandbox.objects.filter(
            team=team,
            state__in=(State.GONE, State.FAILED),
            ended_at__lt=late,
            snapshots=None,
        )
        for row in ended.order_by("ended_at")[:AT_ONCE]:
            try:
                row.delete()
            except ProtectedError as error:
                logger.warning("sandbox %s stays: %s", row.code, error)
            else:
                logger.info("sandbox %s: its record is deleted", row.code)
