"""The control plane: make, find, change and end machines."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import REQUEST_TIMEOUT_S, backend, breaker, calling, options
from .boxes import forget

if TYPE_CHECKING:
    import e2b

CREATE_TIMEOUT_S = 60.0
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
            template=sandbox.template,
            timeout=sandbox.timeout_s,
            metadata={**sandbox.metadata, **names},
            envs=sandbox.envs,
            allow_internet_access=sandbox.internet,
            lifecycle={"on_timeout": "pause"} if sandbox.pauses_at_end else None,
            idempotency_key=sandbox.op_id,
            request_timeout=CREATE_TIMEOUT_S,
            retries=0,
            **backend(sandbox.backend).options,
        )
    return info(sandbox, sandbox_id=made.sandbox_id)


def info(sandbox: Sandbox, *, sandbox_id: str = "") -> Machine:
    """The machine as the backend tells it now. Raises Gone."""
    import e2b

    with calling(sandbox.backend, control=True):
        found = e2b.Sandbox.get_info(
            sandbox_id or sandbox.sandbox_id, **options(sandbox.backend)
        )
    return _machine(found)


def machines(name: str, metadata: dict[str, str] | None = None) -> list[Machine]:
    """Every machine of this instance at a backend, or those with the metadata."""
    import e2b

    wanted = metadata or {INSTANCE_KEY: settings.INSTANCE_ID}
    query = e2b.SandboxQuery(metadata=wanted)
    found: list[Machine] = []
    with calling(name, control=True):
        pages = e2b.Sandbox.list(query=query, limit=100, **options(name))
        while pages.has_next:
            found.extend(_machine(item) for item in pages.next_items())
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
        e2b.Sandbox.pause(sandbox.sandbox_id, **options(sandbox.backend))
    forget(sandbox)


def resume(sandbox: Sandbox, seconds: int) -> Machine:
    """Resume the machine for so many seconds. Raises Gone."""
    import e2b

    with calling(sandbox.backend, control=True):
        e2b.Sandbox.connect(
            sandbox.sandbox_id, timeout=seconds, **options(sandbox.backend)
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


def status(name: str) -> dict[str, Any]:
    """The local runtime's own report: probe, base trees, sandboxes."""
    found: dict[str, Any] = _rest(name, "GET", "/kode/status")
    return found


def build_base(name: str) -> None:
    """Let the local runtime begin to build its `base` tree."""
    _rest(name, "POST", "/kode/trees/base/build")


def _rest(name: str, method: str, path: str) -> Any:
    """A call that the SDK has no method for."""
    found = backend(name)
    base = found.options.get("api_url") or f"https://api.{found.options['domain']}"
    request = urllib.request.Request(
        base + path, method=method, headers={"X-API-Key": found.options["api_key"]}
    )
    breaker(name).check()
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
            return json.loads(response.read(1 << 20) or b"null")
    except urllib.error.HTTPError as error:
        raise errors.SandboxError(f"{path} answered {error.code}.") from error
    except (OSError, ValueError) as error:
        breaker(name).note(failed=True)
        raise errors.Unreachable("The backend does not answer.") from error


def _machine(found: "e2b.SandboxInfo") -> Machine:
    return Machine(
        sandbox_id=found.sandbox_id,
        state=str(getattr(found.state, "value", found.state)),
        template=found.name or found.template_id,
        metadata=found.metadata,
        started_at=found.started_at,
        ends_at=found.end_at,
    )
