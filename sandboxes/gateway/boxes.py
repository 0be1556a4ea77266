"""Connections to machines, kept for as long as they serve."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import Backend, backend, calling, options
from .prompt import promptly

if TYPE_CHECKING:
    import e2b

KEPT_BOXES = 200
type Boxes = OrderedDict[str, "e2b.AsyncSandbox"]
_boxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Boxes] = WeakKeyDictionary()
_sync_boxes: "OrderedDict[str, e2b.Sandbox]" = OrderedDict()


def forget(sandbox: Sandbox) -> None:
    """Drop connections to a machine that changed or ended."""
    _sync_boxes.pop(sandbox.sandbox_id, None)
    for boxes in list(_boxes.values()):
        boxes.pop(sandbox.sandbox_id, None)


def _seconds_left(sandbox: Sandbox) -> int:
    """What `connect` may be told without ever changing the machine's end.

    Raises NotReady when the time is over: connecting would wake a machine that
    paused at its end.
    """
    left_s = sandbox.seconds_left
    if not left_s:
        raise errors.NotReady("This sandbox's time is over.")
    return left_s


def _check_running(sandbox: Sandbox) -> None:
    """Connecting would resume a paused machine; only `resume` may do that."""
    if not sandbox.is_alive:
        raise errors.Gone("This sandbox has ended.")
    if not sandbox.is_running:
        raise errors.NotReady(f"This sandbox is {sandbox.state}, not running.")


def _reread(sandbox: Sandbox) -> dict[str, Any]:
    """Catch up with the row: it may have been extended, paused or resumed since.

    Gives the options of its backend. A probe's machine has no row.
    """
    if sandbox.pk is not None:
        sandbox.refresh_from_db(fields=["state", "sandbox_id", "ends_at"])
        _check_running(sandbox)
    return options(sandbox.backend)


def running_at(sandbox: Sandbox) -> Backend:
    """The backend of a sandbox, which runs. Raises Gone, NotReady."""
    _reread(sandbox)
    _seconds_left(sandbox)
    return backend(sandbox.backend)


def box(sandbox: Sandbox) -> "e2b.Sandbox":
    """A connected sandbox for blocking code."""
    import e2b

    _check_running(sandbox)
    if known := _sync_boxes.get(sandbox.sandbox_id):
        return known
    known_options = _reread(sandbox)
    left_s = _seconds_left(sandbox)
    with calling(sandbox.backend, control=True):
        connected = promptly(
            lambda: e2b.Sandbox.connect(
                sandbox.sandbox_id, timeout=left_s, **known_options
            )
        )
    _keep(_sync_boxes, sandbox.sandbox_id, connected)
    return connected


async def open_box(sandbox: Sandbox) -> "e2b.AsyncSandbox":
    """A connected sandbox for asynchronous code, kept per event loop."""
    import e2b

    _check_running(sandbox)
    boxes = _boxes.setdefault(asyncio.get_running_loop(), OrderedDict())
    if known := boxes.get(sandbox.sandbox_id):
        return known
    known_options = await database_sync_to_async(_reread)(sandbox)
    with calling(sandbox.backend, control=True):
        connected = await e2b.AsyncSandbox.connect(
            sandbox.sandbox_id, timeout=_seconds_left(sandbox), **known_options
        )
    _keep(boxes, sandbox.sandbox_id, connected)
    return connected


def _keep[B](boxes: OrderedDict[str, B], sandbox_id: str, connected: B) -> None:
    boxes[sandbox_id] = connected
    while len(boxes) > KEPT_BOXES:
        boxes.popitem(last=False)


@dataclass(frozen=True)
class Target:
    """How to reach a port inside: connect to `url`, send `headers` along."""

    url: str
    headers: dict[str, str]


def target(sandbox: Sandbox, port: int) -> Target:
    """The address of a port of a running sandbox."""
    connected = box(sandbox)
    host = connected.get_host(port)
    token = connected.traffic_access_token
    headers = {"e2b-traffic-access-token": token} if token else {}
    local = backend(sandbox.backend).options.get("sandbox_url")
    # The runtime is reached at its own address and told the host by header.
    return Target(local or f"https://{host}", {**headers, "host": host})
