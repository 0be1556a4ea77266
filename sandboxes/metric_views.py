"""What a sandbox uses, drawn on the server."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from kode_web.shortcuts import page
from kode_web.teams import access
from kode_web.teams.templatetags.house import size

from . import gateway
from .charts import Chart, chart
from .errors import SandboxError
from .gateway import Sample
from .models import Sandbox
from .views import frame

# Value of ?range= -> its words and its length; None is all there is.
RANGES: dict[str, tuple[str, timedelta | None]] = {
    "15m": ("15 min", timedelta(minutes=15)),
    "1h": ("1 h", timedelta(hours=1)),
    "6h": ("6 h", timedelta(hours=6)),
    "all": ("All", None),
}
TABLE_ROWS = 12


@login_required
@require_GET
def show(request: HttpRequest, code: str) -> HttpResponse:
    """Charts of processor, memory and disk, and their latest values."""
    sandbox = access.get(request.user, Sandbox, code)
    chosen = request.GET.get("range", "15m")
    if chosen not in RANGES:
        chosen = "15m"
    context = frame(request, sandbox, "metrics") | {
        "ranges": [(name, words) for name, (words, _) in RANGES.items()],
        "range": chosen,
    }
    if sandbox.sandbox_id and sandbox.is_alive:
        context |= _drawn(sandbox, RANGES[chosen][1])
    return page(request, "sandboxes/metrics.html", "charts", context)


def _drawn(sandbox: Sandbox, length: timedelta | None) -> dict[str, Any]:
    end = timezone.now()
    start = end - length if length else sandbox.started_at or sandbox.created_at
    try:
        samples = gateway.metrics(sandbox, start, end)
    except SandboxError as error:
        return {"error": error}
    return {"charts": _charts(samples, start, end), "start": start, "end": end} | {
        "samples": samples[-1 : -TABLE_ROWS - 1 : -1],
    }


def _charts(samples: list[Sample], start: datetime, end: datetime) -> list[Any]:
    """(title, what it is now, the scale's top, chart) of each figure."""
    if not samples:
        return []
    last = samples[-1]
    rows: list[tuple[str, Callable[[Sample], float], float, Callable[[float], str]]] = [
        ("Processor", lambda one: one.cpu_percent, 100, lambda v: f"{v:.0f} %"),
        (
            "Memory",
            lambda one: one.memory_bytes,
            last.memory_total_bytes,
            lambda v: size(int(v)),
        ),
        (
            "Disk",
            lambda one: one.disk_bytes,
            last.disk_total_bytes,
            lambda v: size(int(v)),
        ),
    ]
    found = []
    for title, value, top, words in rows:
        points = [(one.at, value(one)) for one in samples]
        drawn = chart(points, start=start, end=end, top=top)
        found.append((title, _words(drawn, words), drawn))
    return found


def _words(drawn: Chart, words: Callable[[float], str]) -> dict[str, str]:
    """The chart's figures as text; a hyphen where nothing was measured."""
    values = {"now": drawn.latest, "highest": drawn.highest, "top": drawn.top}
    return {k: "-" if v is None else words(v) for k, v in values.items()}
