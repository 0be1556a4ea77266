"""Download links: made by a person, good for whoever has them, until they expire."""

import hashlib
import secrets
from datetime import timedelta

from django.db.models import F
from django.http import Http404
from django.utils import timezone

from kode_web.teams import access
from kode_web.teams.models import User

from . import actions, files
from .errors import Invalid, NotFound, NotReady
from .models import DownloadLink, Sandbox

# Hours -> how it is said.
LIVES = {1: "1 hour", 24: "1 day", 168: "7 days"}
MAX_LINKS = 100  # of one sandbox
GONE = "This link is over. Ask for a new one."


def make(user: User, sandbox: Sandbox, path: str, hours: int) -> tuple[str, str]:
    """A new link to a path: its key, which is told only now, and its code."""
    if hours not in LIVES:
        raise Invalid("A link is good for an hour, a day or seven days.")
    entry = files.stat(sandbox, path)
    if not (entry.is_dir or entry.is_file):
        raise Invalid("Only files and folders can be downloaded.")
    now = timezone.now()
    sandbox.links.filter(expires_at__lt=now).delete()
    if sandbox.links.count() >= MAX_LINKS:
        raise NotReady(f"This sandbox has {MAX_LINKS} links. Revoke some first.")
    key = secrets.token_urlsafe(24)
    row = DownloadLink.objects.create(
        sandbox=sandbox,
        owner=user,
        path=entry.path,
        key_hash=_hash(key),
        expires_at=now + timedelta(hours=hours),
    )
    actions.record(
        sandbox, "file.linked", actor=user, path=entry.path[:500], life=LIVES[hours]
    )
    return key, row.code


def use(key: str) -> DownloadLink:
    """The link of a key, counted. Raises NotFound, whatever is wrong with it."""
    found = DownloadLink.objects.filter(
        key_hash=_hash(key), expires_at__gt=timezone.now()
    )
    row = found.select_related("sandbox", "owner").first()
    if row is None or not row.owner.is_active:
        raise NotFound(GONE)
    try:
        access.get(row.owner, Sandbox, row.sandbox.code)
    except Http404 as error:
        raise NotFound(GONE) from error
    if not row.sandbox.is_running:
        raise NotReady("The sandbox of this file does not run now. Try again later.")
    found.update(used_count=F("used_count") + 1)
    actions.record(row.sandbox, "file.downloaded", path=row.path[:500], by="link")
    return row


def revoke(user: User, row: DownloadLink) -> None:
    """End it now."""
    if row.delete()[0]:
        actions.record(row.sandbox, "file.unlinked", actor=user, path=row.path[:500])


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
