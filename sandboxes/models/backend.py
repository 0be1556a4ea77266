"""Backends that an administrator or a team adds, and what probing them found."""

import ipaddress
import re
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from kode_web.teams.models import Team, User, new_code
from kode_web.teams.secrets import SecretJSONField
from sandboxes.errors import NotReady

from .sandbox import Sandbox, Snapshot

# Of the settings; a row of that name would never be seen.
RESERVED = frozenset({"local", "e2b", "teams"})
# Of the accounts that teams bring themselves.
OWN = re.compile(r"team-\d+")
NAME = re.compile(r"[a-z][a-z0-9-]*")
DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?")
KEY = re.compile(r"[!-~]{8,500}")
CLOUD = "e2b.app"
# Shorter keys show nothing of themselves.
MIN_HINTED = 12


class BackendRow(models.Model):
    """A backend beside those of the settings.

    `name` is what sandboxes keep of it. `team` None is for everybody, else the
    account is that team's own and nobody else may use it.
    """

    class Kind(models.TextChoices):
        """What stands at the other end."""

        E2B = "e2b", "E2B cloud"
        CLUSTER = "cluster", "Self-hosted cluster"
        LOCAL = "local", "Local runtime"

    name = models.SlugField(max_length=20, unique=True)
    title = models.CharField(max_length=80)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.CLUSTER)
    domain = models.CharField(max_length=200, blank=True)
    api_url = models.CharField("API URL", max_length=300, blank=True)
    sandbox_url = models.CharField("sandbox URL", max_length=300, blank=True)
    api_key = SecretJSONField(default="", blank=True, editable=False)
    key_by = models.ForeignKey(
        User, null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    key_at = models.DateTimeField(null=True, editable=False)
    team = models.ForeignKey(
        Team,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="backends",
        help_text="Empty: for all teams. Else that team's own account.",
    )
    is_enabled = models.BooleanField(
        "takes new sandboxes",
        default=True,
        help_text="Off: those that are there go on, and no new one is made.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "backend"
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=~models.Q(name__in=sorted(RESERVED)), name="free_backend_name"
            ),
        ]

    def __str__(self) -> str:
        return self.title or self.name

    @property
    def key_hint(self) -> str:
        """The last four characters of the key; empty without one."""
        key = str(self.api_key)
        return f"…{key[-4:] if len(key) >= MIN_HINTED else ''}" if key else ""

    @property
    def address(self) -> str:
        """Where it is, in a few words."""
        return self.api_url or self.domain

    def clean(self) -> None:
        """Refuse names and addresses that cannot be, or must not be."""
        wrong = _wrong_name(self.name, self.team_id)
        if wrong and self._state.adding:
            raise ValidationError({"name": wrong})
        self.domain = self.domain.strip().lower()
        self.api_url = clean_url("api_url", self.api_url)
        self.sandbox_url = clean_url("sandbox_url", self.sandbox_url)
        if self.domain and not DOMAIN.fullmatch(self.domain):
            raise ValidationError(
                {"domain": "A domain such as e2b.example.org, without https://."}
            )
        if not (self.domain or self.api_url or self.sandbox_url):
            self.domain = CLOUD if self.kind == self.Kind.E2B else ""
        if not self.domain and not (self.api_url and self.sandbox_url):
            raise ValidationError("Give the domain, or both URLs.")

    def in_use(self) -> str:
        """Why it cannot be deleted; empty when it can."""
        alive = Sandbox.objects.alive().filter(backend=self.name)
        names = ", ".join(alive.order_by("name").values_list("name", flat=True)[:5])
        if count := alive.count():
            return f"{count} of its sandboxes are alive ({names}). Dispose them first."
        kept = Snapshot.objects.filter(backend=self.name).exclude(
            state__in=(Snapshot.State.FAILED, Snapshot.State.DELETED)
        )
        if count := kept.count():
            return f"It keeps {count} snapshots. Delete them first."
        return ""

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete it. Raises NotReady while it is used: its machines cost money."""
        if reason := self.in_use():
            raise NotReady(f"{self} cannot be removed: {reason}")
        # What was found there is not true of another one by the same name.
        Probe.objects.filter(backend=self.name).delete()
        return super().delete(*args, **kwargs)


class Probe(models.Model):
    """One run of all calls against a backend, by name. Steps come as they end.

    Each step is a dict of `key`, `words`, `state` (ok, failed, unsupported,
    skipped), `detail` and `ms`.
    """

    code = models.CharField(max_length=32, unique=True, default=new_code)
    backend = models.CharField(max_length=20)
    by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    steps = models.JSONField(default=list)
    error = models.CharField(max_length=500, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    # Moves on with each step: one that stands still is of a process that died.
    seen_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-started_at", "-pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["backend"],
                condition=models.Q(ended_at=None),
                name="one_probe_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"probe of {self.backend}"

    def count(self, state: str) -> int:
        """How many steps ended so."""
        return sum(step["state"] == state for step in self.steps)


def _wrong_name(name: str, team_id: int | None) -> str:
    if not NAME.fullmatch(name):
        return "Small letters, digits and hyphens; a letter first."
    if name in RESERVED or (OWN.fullmatch(name) and name != f"team-{team_id}"):
        return f"{name} is kept for another backend. Choose another."
    return ""


def clean_url(field: str, text: str) -> str:
    """An address that a key may be sent to. Raises ValidationError."""
    text = text.strip().rstrip("/")
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValidationError({field: "This is not a URL."}) from error
    if parts.scheme not in ("http", "https") or not host or not text.isprintable():
        raise ValidationError({field: "Give a URL such as https://api.example.org."})
    if "@" in parts.netloc or parts.query or parts.fragment or " " in text:
        raise ValidationError({field: "A URL without user name, ? and #, please."})
    if parts.scheme == "http" and not is_loopback(host):
        raise ValidationError(
            {field: "Only https, except on this machine: the key is sent there."}
        )
    return text


def is_loopback(host: str) -> bool:
    """Whether the host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
