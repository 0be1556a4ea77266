"""All that happened to a sandbox: its timeline, which is the audit log too."""

import csv
import json
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET

from kode_web.shortcuts import page, pieces
from kode_web.teams import access

from .models import Event, Sandbox
from .views import frame

PER_PAGE = 100
# Value of ?show= -> its words and the first parts of the kinds it lists.
SHOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "": ("All", ()),
    "state": ("State", ("sandbox",)),
    "terminals": ("Terminals", ("terminal", "recording")),
    "commands": ("Commands", ("command",)),
    "files": ("Files", ("file",)),
    "ports": ("Ports", ("port",)),
    "snapshots": ("Snapshots", ("snapshot",)),
    "agents": ("Agents", ("agent",)),
}
COLUMNS = ("at", "actor", "kind", "data")


@login_required
@require_GET
def show(request: HttpRequest, code: str) -> HttpResponseBase:
    """Newest first, PER_PAGE at a time; by `?format=` all of it as a file."""
    sandbox = access.get(request.user, Sandbox, code)
    chosen = request.GET.get("show", "")
    if chosen not in SHOWN:
        chosen = ""
    events = _of_kinds(sandbox.events.select_related("actor"), SHOWN[chosen][1])
    if request.GET.get("format") in FORMATS:
        return _file(request, sandbox, events, request.GET["format"])
    before = request.GET.get("before", "")
    if before.isdecimal() and len(before) < 19:
        events = events.filter(pk__lt=int(before))
    found = list(events.order_by("-pk")[: PER_PAGE + 1])
    context = frame(request, sandbox, "activity") | {
        "events": found[:PER_PAGE],
        "older": found[PER_PAGE - 1].pk if len(found) > PER_PAGE else None,
        "views": [(name, words) for name, (words, _) in SHOWN.items()],
        "show": chosen,
        "is_live": sandbox.is_alive and not before,
    }
    return page(request, "sandboxes/activity.html", "events", context)


def _of_kinds(events: QuerySet[Event], firsts: tuple[str, ...]) -> QuerySet[Event]:
    wanted = Q()
    for first in firsts:
        wanted |= Q(kind__startswith=f"{first}.")
    return events.filter(wanted)


def _file(
    request: HttpRequest, sandbox: Sandbox, events: QuerySet[Event], form: str
) -> HttpResponse | StreamingHttpResponse:
    write, kind = FORMATS[form]
    rows = events.order_by("pk").iterator(chunk_size=500)
    response = StreamingHttpResponse(pieces(request, write(rows)), content_type=kind)
    name = f"{sandbox.name} activity.{form}"
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["Cache-Control"] = "private, no-store"
    return response


def _values(event: Event) -> dict[str, Any]:
    actor = event.actor.email if event.actor else ""
    return {
        "at": event.at.isoformat(),
        "actor": actor,
        "kind": event.kind,
        "data": event.data,
    }


def _as_json(events: Iterator[Event]) -> Iterator[bytes]:
    """One object a line."""
    for event in events:
        yield json.dumps(_values(event)).encode() + b"\n"


class _Line:
    """A file for the csv module that keeps the last line."""

    def write(self, text: str) -> int:
        """Keep it."""
        self.text = text
        return len(text)


def _as_csv(events: Iterator[Event]) -> Iterator[bytes]:
    line = _Line()
    writer = csv.writer(line)
    writer.writerow(COLUMNS)
    yield line.text.encode()
    for event in events:
        values = _values(event)
        values["data"] = json.dumps(values["data"])
        writer.writerow([_harmless(str(values[name])) for name in COLUMNS])
        yield line.text.encode()


def _harmless(text: str) -> str:
    """A spreadsheet must not take what somebody wrote for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


FORMATS = {
    "csv": (_as_csv, "text/csv; charset=utf-8"),
    "jsonl": (_as_json, "application/jsonl"),
}
