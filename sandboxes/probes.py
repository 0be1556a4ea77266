"""Trying every call out against a backend, one after the other.

A probe runs in a thread of its own with a machine that no row knows. The machine
is marked like one that a row asked for: were this process killed in the middle,
the reaper ends it as an orphan.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import IntegrityError, connection
from django.utils import timezone

from kode_web.teams.models import User

from . import errors, gateway, probe_steps
from .models import Probe
from .probe_steps import STEPS, Bench

logger = logging.getLogger(__name__)
# One whose steps stand still for so long is of a process that died. No single
# call takes longer.
LOST = timedelta(seconds=150)
KEPT = 5  # of each backend
MAX_DETAIL = 300
OK, FAILED, UNSUPPORTED, SKIPPED = "ok", "failed", "unsupported", "skipped"


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    state: str
    detail: str = ""


def last(name: str) -> Probe | None:
    """The newest probe of a backend; one whose process died is closed first."""
    _close_lost(name)
    return Probe.objects.filter(backend=name).select_related("by").first()


def lacks(name: str) -> list[str]:
    """What the last probe that ended found that the backend does not have."""
    done = Probe.objects.filter(backend=name).exclude(ended_at=None).first()
    steps = done.steps if done else []
    return [step["words"] for step in steps if step["state"] == UNSUPPORTED]


def _close_lost(name: str) -> None:
    lost = Probe.objects.filter(
        backend=name, ended_at=None, seen_at__lt=timezone.now() - LOST
    )
    if lost.exists():
        lost.update(ended_at=timezone.now(), error="It was interrupted. Probe again.")


def start(user: User, name: str) -> Probe:
    """Begin a probe, or return the one that runs already."""
    _close_lost(name)
    try:
        row = Probe.objects.create(backend=name, by=user)
    except IntegrityError:
        running = Probe.objects.filter(backend=name, ended_at=None).first()
        if running is None:
            raise errors.NotReady("A probe just ended. Look again.") from None
        return running
    old = Probe.objects.filter(backend=name).values_list("pk", flat=True)[KEPT:]
    Probe.objects.filter(pk__in=list(old)).delete()
    threading.Thread(
        target=_in_thread, args=(row.pk, name), name=f"probe-{name}", daemon=True
    ).start()
    return row


def _in_thread(pk: int, name: str) -> None:
    """The outermost frame: whatever happens, the probe ends."""
    error = ""
    try:
        # A copy of its own: the caller's may be read again meanwhile.
        error = run(Probe.objects.get(pk=pk))
    except Exception:
        logger.exception("probe of %s", name)
        error = "It broke down. See the log of the web process."
    finally:
        open_rows = Probe.objects.filter(pk=pk, ended_at=None)
        open_rows.update(ended_at=timezone.now(), error=error)
        connection.close()


def run(row: Probe) -> str:
    """All steps in order; what was made is cleaned up even when one fails.

    Gives what could not be cleaned up, in words; empty when nothing is left.
    """
    bench = Bench.at(row.backend, row.code)
    runner = Runner(row, bench)
    left = ""
    try:
        for step in STEPS:
            runner.take(step)
    finally:
        if left := probe_steps.clean_up(bench):
            logger.warning("probe of %s: %s", row.backend, left)
    return left


@dataclass
class Runner:
    """A probe under way: which steps worked, and so which can be tried."""

    row: Probe
    bench: Bench
    worked: set[str] = field(default_factory=set)

    def take(self, step: probe_steps.Step) -> None:
        """One step: its time, its outcome, written down at once."""
        begun = time.monotonic()
        missing = next(self._missing(step), None)
        outcome = (
            Outcome(SKIPPED, f"It needs: {missing}.") if missing else self._try(step)
        )
        if outcome.state == OK:
            self.worked.add(step.key)
        ms = 0 if missing else round(1000 * (time.monotonic() - begun))
        self.row.steps.append(
            {
                "key": step.key,
                "words": step.words,
                "state": outcome.state,
                "detail": outcome.detail[:MAX_DETAIL],
                "ms": ms,
            }
        )
        Probe.objects.filter(pk=self.row.pk).update(
            steps=self.row.steps, seen_at=timezone.now()
        )

    def _missing(self, step: probe_steps.Step) -> Iterator[str]:
        """The words of what it needs and did not work."""
        words = {one.key: one.words for one in STEPS}
        yield from (words[key] for key in step.needs if key not in self.worked)

    def _try(self, step: probe_steps.Step) -> Outcome:
        try:
            return Outcome(OK, step.call(self.bench))
        except errors.Unsupported as error:
            return Outcome(UNSUPPORTED, str(error))
        except (errors.NotFound, errors.Gone) as error:
            if step.is_optional and self._is_there():
                return Outcome(UNSUPPORTED, "The backend answers 404: not there.")
            return Outcome(FAILED, str(error))
        except errors.SandboxError as error:
            return Outcome(FAILED, str(error))
        except Exception as error:
            # Answers of a strange backend may break anything: it is a finding.
            logger.info("probe of %s: %s", self.row.backend, step.key, exc_info=error)
            return Outcome(FAILED, f"{type(error).__name__}: {error}")

    def _is_there(self) -> bool:
        """Whether the machine itself is known, so that 404 means the call."""
        if not self.bench.box.sandbox_id:
            return True
        try:
            gateway.info(self.bench.box)
        except errors.SandboxError:
            return False
        return True
