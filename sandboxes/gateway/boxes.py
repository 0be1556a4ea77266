"""Connections to machines, kept for as long as they serve."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from django.utils import timezone

from sandboxes import errors
from sandboxes.models import Sandbox

from .backends import backend, calling, options

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
    """What `connect` may be told without ever changing the machine's end."""
    end = sandbox.ends_at or timezone.now()
    return max(1, int((end - timezone.now()).total_seconds()))


def _check_running(sandbox: Sandbox) -> None:
    """Connecting would resume a paused machine; only `resume` may do that."""
    if not sandbox.is_alive:
        raise errors.Gone("This sandbox has ended.")
    if not sandbox.is_running:
        raise errors.NotReady(f"This sandbox is {sandbox.state}, not running.")


def box(sandbox: Sandbox) -> "e2b.Sandbox":
    """A connected sandbox for blocking code."""
    import e2b

    _check_running(sandbox)
    if sandbox.sandbox_id not in _sync_boxes:
        with calling(sandbox.backend):
            _sync_boxes[sandbox.sandbox_id] = e2b.Sandbox.connect(
                sandbox.sandbox_id,
                timeout=_seconds_left(sandbox),
                **options(sandbox.backend),
            )
        while len(_sync_boxes) > KEPT_BOXES:
            _sync_boxes.popitem(last=False)
    return _sync_boxes[sandbox.sandbox_id]


async def open_box(sandbox: Sandbox) -> "e2b.AsyncSandbox":
    """A connected sandbox for asynchronous code, kept per event loop."""
    import e2b

    _check_running(sandbox)
    boxes = _boxes.setdefault(asyncio.get_running_loop(), OrderedDict())
    if sandbox.sandbox_id not in boxes:
        with calling(sandbox.backend):
            boxes[sandbox.sandbox_id] = await e2b.AsyncSandbox.connect(
                sandbox.sandbox_id,
                timeout=_seconds_left(sandbox),
                **options(sandbox.backend),
            )
        while len(boxes) > KEPT_BOXES:
            boxes.popitem(last=False)
    return boxes[sandbox.sandbox_id]


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
