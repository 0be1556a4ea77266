"""The look of a sandbox's state and of what happened to it."""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from kode_web.teams.templatetags.house import size
from sandboxes.models import Event, Probe

register = template.Library()
# States whose word or sign is not their name.
SIGNS = {"killing": "disposing", "gone": "ended"}
# First part of an event's kind -> icon; the whole kind wins.
ICONS = {
    "sandbox": "sandbox",
    "sandbox.created": "plus",
    "sandbox.paused": "pause",
    "sandbox.resumed": "play",
    "sandbox.extended": "clock",
    "sandbox.disposed": "trash",
    "sandbox.failed": "warn",
    "terminal": "terminal",
    "recording": "record",
    "command": "exec",
    "snapshot": "fork",
    "port": "port",
    "file": "file",
    "agent": "agent",
}
# How a step of a probe ended -> its sign and its word.
PROBED = {
    "ok": ("running", "works"),
    "failed": ("error", "failed"),
    "unsupported": ("idle", "not there"),
    "skipped": ("idle", "skipped"),
    "running": ("working", "trying"),
    "waiting": ("idle", "to come"),
}
SENTENCES = {
    "sandbox.created": "asked for this sandbox",
    "sandbox.running": "The sandbox runs",
    "sandbox.failed": "The sandbox could not be made",
    "sandbox.extended": "gave it more time",
    "sandbox.paused": "paused it",
    "sandbox.resumed": "resumed it",
    "sandbox.renamed": "renamed it",
    "sandbox.labelled": "changed its labels",
    "sandbox.timed": "changed how long it lives",
    "sandbox.variables": "set variables",
    "sandbox.connected": "connected to it by its id",
    "sandbox.disposed": "disposed it",
    "sandbox.gone": "The sandbox ended",
    "terminal.opened": "opened a terminal",
    "terminal.closed": "closed a terminal",
    "port.shared": "changed who may open a port",
    "snapshot.made": "took a snapshot",
    "snapshot.deleted": "deleted a snapshot",
    "command.started": "ran a command",
    "command.ended": "A command ended",
    "recording.started": "began to record a terminal",
    "recording.ended": "ended a recording",
    "recording.deleted": "deleted a recording",
    "file.edited": "edited a file",
    "file.created": "made a file",
    "file.moved": "moved a file",
    "file.deleted": "deleted a file",
    "file.uploaded": "uploaded a file",
    "file.downloaded": "downloaded a file",
    "file.exported": "downloaded a folder",
    "file.linked": "made a download link",
    "file.unlinked": "revoked a download link",
}


@register.simple_tag
def state(value: str, bare: bool = False) -> SafeString:
    """The sign and the word of a state; `bare` hides the word from the eye."""
    return format_html(
        '<span class="state{}" data-state="{}"><span>{}</span></span>',
        " bare" if bare else "",
        "error" if value == "failed" else value,
        SIGNS.get(value, value),
    )


@register.filter
def sign(event: Event) -> str:
    """The icon of an event."""
    return ICONS.get(event.kind) or ICONS.get(event.kind.partition(".")[0], "info")


@register.filter
def sentence(event: Event) -> str:
    """What happened, to be read after the name of who did it."""
    return SENTENCES.get(event.kind) or event.kind.replace(".", " ").replace("_", " ")


@register.filter
def among(name: str, titles: dict[str, str]) -> str:
    """The title of that name; the name where none is known."""
    return titles.get(name, name)


@register.filter
def count_of(probe: Probe, state: str) -> int:
    """How many steps of a probe ended so."""
    return probe.count(state)


@register.filter
def probe_sign(state: str) -> str:
    """The sign of a step of a probe."""
    return PROBED.get(state, ("idle", state))[0]


@register.filter
def probe_words(state: str) -> str:
    """The same in words."""
    return PROBED.get(state, ("idle", state))[1]


@register.filter
def details(event: Event) -> str:
    """The rest of it: names and numbers of the event."""
    data = event.data
    if event.kind == "sandbox.renamed":
        return f"{data.get('old', '')} to {data.get('to', '')}"
    if event.kind == "sandbox.extended":
        return f"{int(data.get('seconds', 0)) // 60} min"
    if event.kind == "file.moved":
        return f"{data.get('path', '')} to {data.get('to', '')}"
    if event.kind in ("file.uploaded", "file.edited") and "size_bytes" in data:
        return f"{data.get('path', '')}, {size(data.get('size_bytes'))}"
    if event.kind == "command.started":
        by = f" ({data['agent']})" if data.get("agent") else ""
        return f"{data.get('text', '')}{by}"
    if event.kind == "command.ended":
        how = data.get("ending", "")
        code = data.get("exit_code")
        return f"{how if code is None else f'exit code {code}'}: {data.get('text', '')}"
    if event.kind.startswith(("recording.", "snapshot.")):
        return str(data.get("name", ""))
    return ", ".join(str(value) for value in data.values() if value not in ("", None))
