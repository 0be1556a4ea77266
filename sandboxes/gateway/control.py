"""The control plane: make, find, change and end machines."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
from django.conf import settings

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import backend, calling, options
from .boxes import forget
from .prompt import at_once, promptly

if TYPE_CHECKING:
    import e2b

# E2B's cloud writes memory to disk, or reads it, for seconds a gigabyte.
SLOW_TIMEOUT_S = 60.0
# Of the connection, and of the answer: a page may wait for both.
REST_TIMEOUT_S = 1.2
STATUS_AGE_S, STATUS_TIMEOUT_S = 5.0, 1.2
OP_KEY, INSTANCE_KEY = "kode_op", "kode_instance"


@dataclass(frozen=True)
class Machine:
    """A sandbox as its backend tells it. `state` is running or paused."""

    sandbox_id: str
    state: str
    template: str
    metadata: dict[str, str]
    started_at: datetime
    ends_at: datetime


def create(sandbox: Sandbox) -> Machine:
    """Make the machine of a row.

    No retries: each could make another machine. The op id goes along as metadata
    and as idempotency key, so that a machine whose answer is lost is found.
    """
    import e2b

    names = {OP_KEY: sandbox.op_id, INSTANCE_KEY: settings.INSTANCE_ID}
    with calling(sandbox.backend, control=True):
        made = e2b.Sandbox.create(
            template=_template(sandbox),
            timeout=sandbox.timeout_s,
            metadata={**sandbox.metadata, **names},
            envs=sandbox.envs,
            allow_internet_access=sandbox.internet,
            lifecycle={"on_timeout": "pause"} if sandbox.pauses_at_end else None,
            idempotency_key=sandbox.op_id,
            **slow_options(sandbox.backend),
        )
    return info(sandbox, sandbox_id=made.sandbox_id)


def info(sandbox: Sandbox, *, sandbox_id: str = "") -> Machine:
    """The machine as the backend tells it now. Raises Gone."""
    import e2b

    wanted, known_options = sandbox_id or sandbox.sandbox_id, options(sandbox.backend)
    with calling(sandbox.backend, control=True):
        found = promptly(lambda: e2b.Sandbox.get_info(wanted, **known_options))
    return _machine(found)


def machines(name: str, metadata: dict[str, str] | None = None) -> list[Machine]:
    """Every machine of this instance at a backend, or all with the metadata."""
    import e2b

    if metadata is None:
        metadata = {INSTANCE_KEY: settings.INSTANCE_ID}
    query = e2b.SandboxQuery(metadata=metadata)
    found: list[Machine] = []
    with calling(name, control=True):
        pages = e2b.Sandbox.list(query=query, limit=100, **options(name))
        while pages.has_next:
            found.extend(_machine(item) for item in pages.next_items())
            if len({one.sandbox_id for one in found}) < len(found):
                # A list that changes, or never ends: half of it is worth nothing.
                raise errors.Unreachable("The backend lists a sandbox twice.")
    return found


def set_timeout(sandbox: Sandbox, seconds: int) -> None:
    """Let the machine end in so many seconds from now."""
    import e2b

    with calling(sandbox.backend, control=True):
        e2b.Sandbox.set_timeout(sandbox.sandbox_id, seconds, **options(sandbox.backend))


def pause(sandbox: Sandbox) -> None:
    """Pause the machine; one that is paused already is no error."""
    import e2b

    with calling(sandbox.backend, control=True):
        e2b.Sandbox.pause(sandbox.sandbox_id, **slow_options(sandbox.backend))
    forget(sandbox)


def resume(sandbox: Sandbox, seconds: int) -> Machine:
    """Resume the machine for so many seconds. Raises Gone."""
    import e2b

    with calling(sandbox.backend, control=True):
        e2b.Sandbox.connect(
            sandbox.sandbox_id, timeout=seconds, **slow_options(sandbox.backend)
        )
    return info(sandbox)


def kill(sandbox: Sandbox) -> None:
    """End the machine; one that is gone already is no error."""
    import e2b

    with calling(sandbox.backend, control=True):
        e2b.Sandbox.kill(sandbox.sandbox_id, **options(sandbox.backend))
    forget(sandbox)


def templates(name: str) -> list[dict[str, Any]]:
    """The backend's templates, as its REST interface lists them."""
    found: list[dict[str, Any]] = _rest(name, "GET", "/templates")
    return found


def report(name: str) -> dict[str, Any]:
    """The local runtime's own report: probe, base trees, sandboxes."""
    found: dict[str, Any] = _rest(name, "GET", "/kode/status")
    return found


def build_base(name: str) -> None:
    """Let the local runtime begin to build its `base` tree."""
    _rest(name, "POST", "/kode/trees/base/build")


@dataclass(frozen=True)
class Status:
    """Whether a backend serves; `problem` says why not."""

    is_ok: bool
    problem: str = ""


_statuses: dict[str, tuple[float, Status]] = {}
_asking: dict[str, threading.Lock] = {}


def status(name: str) -> Status:
    """Whether a backend serves, up to STATUS_AGE_S ago. Never raises.

    One caller at a time asks, for STATUS_TIMEOUT_S at most; others get what was
    known, so that a page never waits for a sick backend.
    """
    known = _statuses.get(name)
    if known and time.monotonic() - known[0] < STATUS_AGE_S:
        return known[1]
    asking = _asking.setdefault(name, threading.Lock())
    if not asking.acquire(blocking=known is None):
        return known[1] if known else Status(False, "Not asked yet.")
    try:
        found = _ask(name)
        _statuses[name] = (time.monotonic(), found)
    finally:
        asking.release()
    return found


def statuses(names: Iterable[str]) -> dict[str, Status]:
    """Those of several that could be had at once; a slow one is left out."""
    found: dict[str, Status] = {}

    def ask(name: str) -> None:
        found[name] = status(name)

    at_once(ask, names)
    return dict(found)


def _ask(name: str) -> Status:
    try:
        _rest(name, "GET", "/v2/sandboxes?limit=1", timeout_s=STATUS_TIMEOUT_S)
    except errors.SandboxError as error:
        return Status(False, str(error))
    return Status(True)


def _rest(
    name: str, method: str, path: str, *, timeout_s: float = REST_TIMEOUT_S
) -> Any:
    """A call that the SDK has no method for; the key never follows a redirect."""
    found = backend(name)
    base = found.options.get("api_url") or f"https://api.{found.options['domain']}"
    with calling(name, control=True):
        response = httpx.request(
            method,
            base + path,
            headers={"X-API-Key": found.options["api_key"]},
            timeout=timeout_s,
            follow_redirects=False,
        )
        if response.status_code in (401, 403):
            raise errors.Refused("The backend refuses our API key.")
        if response.status_code == 501:
            raise errors.Unsupported("The backend does not have this call.")
        if response.status_code == 404:
            raise errors.NotFound(f"{path} answered 404.")
        if response.status_code == 429:
            raise _busy(response)
        if response.status_code >= 500:
            response.raise_for_status()
        if response.status_code >= 300:
            raise errors.SandboxError(f"{path} answered {response.status_code}.")
        return response.json() if response.content else None


def _busy(response: httpx.Response) -> errors.Busy:
    """Its limit was met; the SDK does not tell for how long, this header does."""
    error = errors.Busy("The backend's limit of calls is met. Try again in a moment.")
    wait = response.headers.get("Retry-After", "")
    error.wait_s = float(wait) if wait.isdecimal() else 0.0
    return error


def slow_options(name: str) -> dict[str, Any]:
    """The options of a call that may take long, and is made in a thread."""
    return {**options(name), "request_timeout": SLOW_TIMEOUT_S}


def _template(sandbox: Sandbox) -> str:
    return sandbox.origin.snapshot_id if sandbox.origin else sandbox.template


def _machine(found: "e2b.SandboxInfo") -> Machine:
    return Machine(
        sandbox_id=found.sandbox_id,
        state=str(getattr(found.state, "value", found.state)),
        template=found.name or found.template_id,
        metadata=found.metadata,
        started_at=found.started_at,
        ends_at=found.end_at,
    )
