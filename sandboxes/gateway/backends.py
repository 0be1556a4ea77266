"""Which backends there are, and what their errors mean in the product."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import F
from django.db.models.signals import post_delete, post_save

from kode_web.teams.models import Team
from sandboxes import errors
from sandboxes.models import BackendRow

logger = logging.getLogger(__name__)
# Of each request. The SDK takes up to twice as long; `prompt` bounds what a page
# waits for.
REQUEST_TIMEOUT_S = 3.0
# A change of the rows is seen by every process within this.
ROWS_AGE_S = 2.0
# A backend that failed this often within the window is left alone for a while.
FAILURES, WINDOW_S, COOL_S = 5, 30.0, 10.0
MAX_REST_S = 60.0
# Each open terminal and command holds a connection; the SDK's own limit is 200, and
# what is above waits for ever. It reads this as it is imported.
os.environ.setdefault("E2B_MAX_CONNECTIONS", "4000")


@dataclass(frozen=True)
class Backend:
    """Where a backend is and how to sign in there.

    `team_id` is that of the only team that may use it. One that is not enabled
    gets no new sandboxes; those that it has are followed as ever.
    """

    name: str
    title: str
    options: dict[str, str] = field(repr=False)
    kind: BackendRow.Kind = BackendRow.Kind.E2B
    team_id: int | None = None
    is_enabled: bool = True

    @property
    def is_local(self) -> bool:
        """Whether its sandboxes share the kernel of one machine."""
        return self.kind == BackendRow.Kind.LOCAL

    @classmethod
    def of(cls, row: BackendRow) -> "Backend":
        """The backend that a row describes, saved or not."""
        given = {"api_key": str(row.api_key), "domain": row.domain}
        # Said always: else the SDK reads the environment, which is the settings'.
        given["api_url"] = row.api_url or f"https://api.{row.domain}"
        given["sandbox_url"] = row.sandbox_url
        options = {name: value for name, value in given.items() if value}
        kind = BackendRow.Kind(row.kind)
        return cls(row.name, str(row), options, kind, row.team_id, row.is_enabled)


def backends() -> dict[str, Backend]:
    """All backends by name: those of the settings, then the rows with a key.

    Reads the database now and then: not for an event loop.
    """
    return _set_up() | _stored()


def _set_up() -> dict[str, Backend]:
    """Those that the settings name."""
    found = {}
    if settings.RUNTIME_URL:
        options = {
            "api_key": _runtime_key(),
            "api_url": settings.RUNTIME_URL,
            "sandbox_url": settings.RUNTIME_URL,
        }
        kind = BackendRow.Kind.LOCAL
        found["local"] = Backend("local", "This machine", options, kind)
    if settings.E2B_API_KEY:
        options = {"api_key": settings.E2B_API_KEY, "domain": settings.E2B_DOMAIN}
        found["e2b"] = Backend("e2b", settings.E2B_DOMAIN, options)
    return found


_rows: tuple[float, dict[str, Backend]] | None = None


def _stored() -> dict[str, Backend]:
    """The rows, as they were up to ROWS_AGE_S ago: other processes change them."""
    global _rows
    known = _rows
    if known is not None and time.monotonic() - known[0] < ROWS_AGE_S:
        return known[1]
    found = {row.name: Backend.of(row) for row in _readable() if row.api_key}
    _rows = (time.monotonic(), found)
    return found


def _readable() -> list[BackendRow]:
    """The rows whose key can be decrypted; the others are logged."""
    rows = BackendRow.objects.order_by(F("team_id").asc(nulls_first=True), "name")
    try:
        return list(rows)
    except ImproperlyConfigured:
        return [row for pk in rows.values_list("pk", flat=True) if (row := _row(pk))]


def _row(pk: int) -> BackendRow | None:
    try:
        return BackendRow.objects.filter(pk=pk).first()
    except ImproperlyConfigured as error:
        logger.error("backend %s cannot be used: %s", pk, error)
        return None


def forget_rows(**_: object) -> None:
    """Read the rows anew at the next use."""
    global _rows
    _rows = None


post_save.connect(forget_rows, BackendRow, dispatch_uid="gateway.saved")
post_delete.connect(forget_rows, BackendRow, dispatch_uid="gateway.deleted")


def backend(name: str) -> Backend:
    """The backend of that name. Raises Unreachable when it is not set up."""
    # Those of the settings without a look into the database.
    found = _set_up().get(name) or _stored().get(name)
    if found is None:
        raise errors.Unreachable(
            "No backend for sandboxes is set up. Start with ./kode up, or set "
            "E2B_API_KEY; ./kode doctor tells what is missing."
        )
    return found


def backends_of(team: Team) -> dict[str, Backend]:
    """Those that the team may make sandboxes at: everybody's, and its own."""
    return {
        name: one
        for name, one in backends().items()
        if one.is_enabled and one.team_id in (None, team.pk)
    }


def choose(team: Team, name: str = "") -> Backend:
    """The backend for a new sandbox of the team; the usual one without a name.

    Raises Unreachable when there is none at all, Invalid for another team's or
    one that does not exist, NotReady for one that is switched off.
    """
    usable = backends_of(team)
    if name in usable:
        return usable[name]
    if name:
        known = backends().get(name)
        if known is not None and known.team_id in (None, team.pk):
            raise errors.NotReady(f"{known.title} takes no new sandboxes now.")
        raise errors.Invalid("There is no such backend. Choose another.")
    usual = usable.get(settings.DEFAULT_BACKEND) or next(iter(usable.values()), None)
    return usual or backend("")


def _runtime_key() -> str:
    with contextlib.suppress(OSError):
        return Path(settings.RUNTIME_KEY_FILE).read_text().strip()
    return ""


class Breaker:
    """Stops calls to a backend that keeps failing, so that no page waits for it.

    Once FAILURES calls failed within WINDOW_S it is open: one call each COOL_S
    goes through as a probe, all others fail at once, until one succeeds.
    """

    def __init__(self) -> None:
        self._failed: list[float] = []
        self._closed_at: float | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once."""
        return self._closed_at is not None

    def check(self) -> None:
        """Raise Unreachable while the backend is left alone."""
        with self._lock:
            now = time.monotonic()
            if self._closed_at is None:
                return
            if now >= self._closed_at:
                self._closed_at = now + COOL_S
                return
            wait_s = self._closed_at - now
        raise errors.Unreachable(
            f"The sandboxes' backend does not answer. Next try in {wait_s:.0f} s."
        )

    def rest(self, seconds: float) -> None:
        """Leave it alone for as long as it asked for, MAX_REST_S at most."""
        with self._lock:
            self._closed_at = time.monotonic() + min(seconds, MAX_REST_S)

    def note(self, *, failed: bool) -> None:
        """Count a call's end."""
        now = time.monotonic()
        with self._lock:
            if not failed:
                self._failed.clear()
                self._closed_at = None
                return
            self._failed = [t for t in self._failed if now - t < WINDOW_S] + [now]
            if len(self._failed) >= FAILURES:
                self._closed_at = now + COOL_S


_breakers: dict[str, Breaker] = {}


def breaker(name: str) -> Breaker:
    """The breaker of a backend, one per process."""
    return _breakers.setdefault(name, Breaker())


def translate(error: Exception, *, in_command: bool = False) -> errors.SandboxError:
    """The product's error for one of the SDK's; the table of this module.

    The SDK's own texts advise programmers, so most are put in other words.
    """
    import e2b

    silent = (errors.Unreachable, "The sandbox does not answer. Try again.")
    late = (errors.TimedOut, "The command took longer than it may.")
    table: tuple[tuple[type[Exception], type[errors.SandboxError], str], ...] = (
        (e2b.FileNotFoundException, errors.NotFound, ""),
        (e2b.SandboxNotFoundException, errors.Gone, "The sandbox no longer exists."),
        (e2b.NotFoundException, errors.NotFound, ""),
        (e2b.SandboxNotRunningException, errors.Gone, "The sandbox is not running."),
        (e2b.SandboxUnreachableException, *silent),
        (e2b.GuestUnresponsiveException, *silent),
        (e2b.TimeoutException, *(late if in_command else silent)),
        (e2b.InvalidArgumentException, errors.Invalid, ""),
        (e2b.NotEnoughSpaceException, errors.TooLarge, "The sandbox's disk is full."),
        (
            e2b.AuthenticationException,
            errors.Refused,
            "The backend refuses our API key. An administrator must check it.",
        ),
        (e2b.RateLimitException, errors.Busy, ""),
        (e2b.ServiceBusyException, errors.Unreachable, "The backend is busy."),
    )
    for kind, ours, text in table:
        if isinstance(error, kind):
            return ours(text or str(error))
    return _by_status(error)


def _by_status(error: Exception) -> errors.SandboxError:
    """The same for errors that only an HTTP status tells apart."""
    import e2b

    status = getattr(error, "status_code", None) or 0
    if status == 409:
        return errors.NotReady(str(error))
    if status == 501:
        return errors.Unsupported("The backend does not have this call.")
    if 400 <= status < 500:
        return errors.Invalid(str(error))
    if isinstance(error, e2b.SandboxException) and not status:
        return errors.SandboxError(str(error))
    # Connection errors, 5xx, answers cut short, bodies that are no JSON.
    return errors.Unreachable(
        f"The sandboxes' backend does not answer ({type(error).__name__})."
    )


@contextlib.contextmanager
def calling(
    name: str, *, control: bool = False, in_command: bool = False
) -> Iterator[None]:
    """Translate errors; calls of the control plane feed the backend's breaker.

    What a single machine answers, or not, says nothing about its backend: code in
    a sandbox must not be able to shut out everybody else.
    """
    if control:
        breaker(name).check()
    try:
        yield
    except errors.SandboxError as error:
        if control and isinstance(error, errors.Unreachable):
            breaker(name).note(failed=True)
        if isinstance(error, errors.Busy) and error.wait_s:
            breaker(name).rest(error.wait_s)
        raise
    except Exception as error:
        ours = translate(error, in_command=in_command)
        if control:
            breaker(name).note(failed=isinstance(ours, errors.Unreachable))
        logger.debug("backend %s", name, exc_info=error)
        raise ours from error
    if control:
        breaker(name).note(failed=False)


def options(name: str) -> dict[str, Any]:
    """The options of every call to a backend; who calls decides to try again."""
    return {
        **backend(name).options,
        "request_timeout": REQUEST_TIMEOUT_S,
        "retries": 0,
    }
