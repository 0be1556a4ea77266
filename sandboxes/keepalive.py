"""A sandbox that is used does not end: its time counts from its last use.

Use is what a person types, a command that runs, an agent that works. The reaper
calls `run_once`; the end moves on to `timeout_s` after the last use, never past
`latest_end`, and never back.
"""

import logging
from datetime import datetime, timedelta

from django.utils import timezone

from . import gateway
from .errors import SandboxError
from .ledger import SEEN_EVERY_S
from .models import Command, Sandbox, State
from .steps import announce

logger = logging.getLogger(__name__)
# The backend is asked no more often than the end moves by this.
STEP = timedelta(seconds=60)
# A command is running when its follower was there so lately.
FRESH = timedelta(seconds=3 * SEEN_EVERY_S)


def run_once() -> None:
    """Move the end of each sandbox that was used on."""
    now = timezone.now()
    running = Command.objects.filter(ended_at=None, seen_at__gt=now - FRESH)
    busy = set(running.values_list("sandbox_id", flat=True))
    for sandbox in Sandbox.objects.filter(state=State.RUNNING).exclude(ends_at=None):
        if sandbox.pk in busy:
            sandbox.used_at = now
        try:
            _extend(sandbox, now)
        except SandboxError as error:
            logger.info("sandbox %s: %s", sandbox.code, error)


def _extend(sandbox: Sandbox, now: datetime) -> None:
    assert sandbox.ends_at is not None
    # A short life is worth a call sooner than a long one.
    step = min(STEP, timedelta(seconds=sandbox.timeout_s / 4))
    wanted = sandbox.used_at + timedelta(seconds=sandbox.timeout_s)
    end = min(wanted, sandbox.latest_end)
    if end - sandbox.ends_at < step or sandbox.ends_at <= now:
        return
    gateway.set_timeout(sandbox, int((end - now).total_seconds()))
    rows = Sandbox.objects.filter(pk=sandbox.pk, state=State.RUNNING)
    if rows.filter(ends_at=sandbox.ends_at).update(
        ends_at=end, used_at=sandbox.used_at
    ):
        announce(sandbox)
