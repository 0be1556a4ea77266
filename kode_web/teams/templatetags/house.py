"""Small things that every page draws: icons, people, spans of time."""

from datetime import datetime
from typing import Any

from django import template
from django.forms import BoundField
from django.template.defaultfilters import stringfilter
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

register = template.Library()
MINUTE, HOUR, DAY = 60, 3600, 86400
PERSON_COLOURS = 4


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon of the sprite; words beside it say what it means."""
    return format_html(
        '<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>',
        static("icons/icons.svg"),
        name,
    )


@register.simple_tag
def mark(extra: str = "") -> SafeString:
    """The product's mark, drawn in the text's own colour."""
    return format_html(
        '<svg class="mark {}" viewBox="0 0 16 16" aria-hidden="true">{}</svg>',
        extra,
        mark_safe(
            '<path d="M4 2.5v11M12 2.5 6.8 8l5.2 5.5" fill="none" '
            'stroke="currentColor" stroke-width="2.2" stroke-linecap="square"/>'
        ),
    )


@register.simple_tag
def avatar(user: Any) -> SafeString:
    """A person's initials in a colour of his own."""
    return format_html(
        '<span class="avatar" data-person="{}" aria-hidden="true">{}</span>',
        (user.pk or 0) % PERSON_COLOURS + 1,
        user.initials,
    )


@register.simple_tag
def person(user: Any) -> SafeString:
    """A person's avatar and name; nobody when the account is gone."""
    if user is None:
        return mark_safe('<span class="muted">nobody</span>')
    return format_html(
        '<span class="person">{}<span class="cut">{}</span></span>',
        avatar(user),
        user.display_name,
    )


@register.filter
def duration(seconds: float | None) -> str:
    """A span of time in at most two units; empty for None."""
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        minutes = whole % HOUR // MINUTE
        return f"{whole // HOUR} h {minutes} min" if minutes else f"{whole // HOUR} h"
    hours = whole % DAY // HOUR
    return f"{whole // DAY} d {hours} h" if hours else f"{whole // DAY} d"


@register.filter
def age(moment: datetime | None) -> str:
    """How long ago in one unit, "now" below ten seconds; empty for None."""
    if moment is None:
        return ""
    seconds = (timezone.now() - moment).total_seconds()
    if seconds < 10:
        return "now"
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds)} s"


@register.filter
def size(count: int | None) -> str:
    """Bytes in a decimal unit."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


@register.filter
def classed(field: BoundField, name: str) -> SafeString:
    """A form's field with a class, and tied to what is wrong with it."""
    wrong = {"aria-invalid": "true"} if field.errors else {}
    return field.as_widget(attrs={"class": name, **wrong})


@register.filter
@stringfilter
def short(code: str) -> str:
    """The first characters of a code, enough to tell a few apart."""
    return code[:8]
