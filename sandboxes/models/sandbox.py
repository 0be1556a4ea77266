"""A team's sandboxes, what they were made from, and all that happened to them."""

from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils import timezone

from kode_web.teams.models import Team, User, new_code
from kode_web.teams.secrets import SecretJSONField


class State(models.TextChoices):
    """Where a sandbox is in its life; changes go by compare-and-set."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    KILLING = "killing"
    GONE = "gone"
    FAILED = "failed"


# States in which the backend has, or may have, a machine for the row.
ALIVE = (
    State.CREATING,
    State.RUNNING,
    State.PAUSING,
    State.PAUSED,
    State.RESUMING,
    State.KILLING,
)
# States that use the quota of running sandboxes.
HOLDING = (State.CREATING, State.RUNNING, State.PAUSING, State.RESUMING)


class SandboxRows(models.QuerySet["Sandbox"]):
    """Many sandboxes."""

    def alive(self) -> Self:
        """Those that the backend has, or may have."""
        return self.filter(state__in=ALIVE)

    def holding(self) -> Self:
        """Those that count against the quota, longest unused first."""
        return self.filter(state__in=HOLDING).order_by("used_at")

    def recent(self) -> Self:
        """Newest use first."""
        return self.order_by("-used_at")

    def move(self, pk: int, old: State, new: State, **fields: Any) -> bool:
        """Compare-and-set the state; False when another process was first."""
        changed = self.filter(pk=pk, state=old).update(
            state=new, state_at=timezone.now(), **fields
        )
        return changed == 1


class Sandbox(models.Model):
    """One sandbox of a team, from its intent to its record after the end.

    `code` is the public id, `sandbox_id` the backend's. `op_id` goes with the
    create call as metadata and idempotency key, so that a machine whose answer
    was lost is found again.
    """

    class OnTimeout(models.TextChoices):
        """What happens when the time is over."""

        KILL = "kill"
        PAUSE = "pause"

    code = models.CharField(max_length=32, unique=True, default=new_code)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="sandboxes")
    owner = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="sandboxes"
    )
    name = models.CharField(max_length=80)
    backend = models.CharField(max_length=20)
    sandbox_id = models.CharField(max_length=80, blank=True, db_index=True)
    op_id = models.CharField(max_length=32, unique=True, default=new_code)
    # Of the form that asked for it: the same form sent twice makes one sandbox.
    request_key = models.CharField(max_length=64)
    state = models.CharField(
        max_length=10, choices=State.choices, default=State.CREATING
    )
    state_at = models.DateTimeField(default=timezone.now)
    error = models.CharField(max_length=500, blank=True)
    template = models.CharField(max_length=120, default="base")
    # The snapshot that it was made from, instead of the template.
    origin = models.ForeignKey(
        "Snapshot", null=True, on_delete=models.PROTECT, related_name="made"
    )
    timeout_s = models.PositiveIntegerField(default=3600)
    on_timeout = models.CharField(
        max_length=5, choices=OnTimeout.choices, default=OnTimeout.KILL
    )
    command_timeout_s = models.PositiveIntegerField(default=60)
    workdir = models.CharField(max_length=500, blank=True)
    envs = SecretJSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    internet = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(default=timezone.now)
    # Its backend said then that it does not have it; a second time ends the row.
    missed_at = models.DateTimeField(null=True, blank=True)

    objects = SandboxRows.as_manager()

    class Meta:
        verbose_name_plural = "sandboxes"
        indexes: ClassVar = [
            models.Index(fields=["team", "state"], name="sandbox_team_state"),
            models.Index(fields=["team", "-used_at"], name="sandbox_team_used"),
            models.Index(fields=["team", "-state_at"], name="sandbox_team_moved"),
            # The order of every list, as it is first seen.
            models.Index(
                fields=["team", "-used_at", "-id"],
                condition=models.Q(state__in=ALIVE),
                name="sandbox_alive_used",
            ),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["team", "request_key"], name="one_sandbox_per_request"
            ),
            models.UniqueConstraint(
                fields=["backend", "sandbox_id"],
                condition=~models.Q(sandbox_id=""),
                name="one_row_per_machine",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=State.values), name="known_sandbox_state"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_alive(self) -> bool:
        """Whether the backend has, or may have, a machine for it."""
        return self.state in ALIVE

    @property
    def is_running(self) -> bool:
        """Whether commands can run in it now."""
        return self.state == State.RUNNING

    @property
    def pauses_at_end(self) -> bool:
        """Whether it is paused, not killed, when its time is over."""
        return self.on_timeout == self.OnTimeout.PAUSE

    @property
    def seconds_left(self) -> int | None:
        """Seconds to its end, 0 when over, None when no clock runs."""
        if not self.is_running or self.ends_at is None:
            return None
        return max(0, int((self.ends_at - timezone.now()).total_seconds()))

    @property
    def latest_end(self) -> datetime:
        """No extension goes past this: KODE_MAX_LIFETIME_S after the start, or
        after it was last resumed."""
        start = self.started_at or self.created_at
        return start + timedelta(seconds=settings.MAX_LIFETIME_S)

    def preview_host(self, port: int) -> str:
        """Host (and port) of the preview of a port inside."""
        return f"{port}-{self.code}.{settings.PREVIEW_DOMAIN}"


class Snapshot(models.Model):
    """The files of a sandbox as they were once, to make others from.

    `snapshot_id` is the backend's, empty until it is made; the backend knows it by
    `label` too, so that one whose answer was lost is found again.
    """

    class State(models.TextChoices):
        """Whether it can be used."""

        MAKING = "making"
        READY = "ready"
        FAILED = "failed"
        DELETED = "deleted"  # kept for the record of what was made from it

    code = models.CharField(max_length=32, unique=True, default=new_code)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="snapshots")
    sandbox = models.ForeignKey(
        Sandbox, on_delete=models.PROTECT, related_name="snapshots"
    )
    owner = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    name = models.CharField(max_length=80)
    backend = models.CharField(max_length=20)
    snapshot_id = models.CharField(max_length=200, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.MAKING)
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        """Its name at the backend."""
        return f"kode-{self.code}"


class Event(models.Model):
    """Something that happened to a sandbox: timeline and audit log in one.

    Append-only. `kind` is "thing.verb", as in "sandbox.created"; `data` holds
    what the sentence needs and never bytes of terminals, files or prompts.
    """

    sandbox = models.ForeignKey(
        Sandbox, on_delete=models.CASCADE, related_name="events"
    )
    actor = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    kind = models.CharField(max_length=40)
    data = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering: ClassVar = ["-at", "-pk"]

    def __str__(self) -> str:
        return self.kind
