"""A team's sandboxes, their terminals, and all that happened to them."""

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

    objects = SandboxRows.as_manager()

    class Meta:
        verbose_name_plural = "sandboxes"
        indexes: ClassVar = [
            models.Index(fields=["team", "state"], name="sandbox_team_state"),
            models.Index(fields=["team", "-used_at"], name="sandbox_team_used"),
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


class Terminal(models.Model):
    """One shell of a sandbox; `pid` is the backend's handle on it."""

    NAME_LENGTH = 40

    code = models.CharField(max_length=32, unique=True, default=new_code)
    sandbox = models.ForeignKey(
        Sandbox, on_delete=models.CASCADE, related_name="terminals"
    )
    name = models.CharField(max_length=NAME_LENGTH)
    # Typed into the shell once, as it opens.
    command = models.CharField(max_length=4000, blank=True)
    pid = models.PositiveIntegerField(null=True, blank=True)
    opened_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    opened_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class TerminalOutput(models.Model):
    """The newest output of an open shell, for the next web process that follows it.

    `sealed` is compressed and encrypted; see `shells.keep`.
    """

    terminal = models.OneToOneField(
        Terminal, on_delete=models.CASCADE, primary_key=True, related_name="output"
    )
    sealed = models.BinaryField()

    def __str__(self) -> str:
        return f"output of {self.terminal_id}"


class Recording(models.Model):
    """What a terminal showed for a while, to be played again.

    Its parts in order are the lines of an asciicast; see `recordings`.
    """

    code = models.CharField(max_length=32, unique=True, default=new_code)
    terminal = models.ForeignKey(
        Terminal, on_delete=models.CASCADE, related_name="recordings"
    )
    started_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    rows = models.PositiveIntegerField()
    cols = models.PositiveIntegerField()
    size_bytes = models.PositiveIntegerField(default=0)

    class Meta:
        ordering: ClassVar = ["-started_at", "-pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["terminal"],
                condition=models.Q(ended_at=None),
                name="one_recording_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.terminal}, {self.started_at:%Y-%m-%d %H:%M}"

    @property
    def seconds(self) -> float:
        """How long it is, or has been so far."""
        return ((self.ended_at or timezone.now()) - self.started_at).total_seconds()


class RecordingPart(models.Model):
    """Some lines of a recording, compressed and encrypted."""

    recording = models.ForeignKey(
        Recording, on_delete=models.CASCADE, related_name="parts"
    )
    sealed = models.BinaryField()

    class Meta:
        ordering: ClassVar = ["pk"]

    def __str__(self) -> str:
        return f"part {self.pk} of {self.recording_id}"


class Command(models.Model):
    """A command that a person or an agent ran in a sandbox; one line of its ledger.

    `agent_code` and `agent_name` are empty for a person's. `seen_at` is renewed by
    the process that follows it: a running one that is not seen is followed anew.
    `left_out` counts the characters between the kept beginning and end of its
    output.
    """

    class Ending(models.TextChoices):
        """How it ended; empty while it runs."""

        EXITED = "exited"
        KILLED = "killed"
        TIMED_OUT = "timed out"
        FAILED = "failed"  # it never began
        LOST = "lost"  # it ended, or runs on, where nobody sees it

    code = models.CharField(max_length=32, unique=True, default=new_code)
    sandbox = models.ForeignKey(
        Sandbox, on_delete=models.CASCADE, related_name="commands"
    )
    # Of the form that asked for it: the same form sent twice runs one command.
    request_key = models.CharField(max_length=64, default=new_code)
    actor = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    agent_code = models.CharField(max_length=32, blank=True)
    agent_name = models.CharField(max_length=80, blank=True)
    text = models.TextField()
    cwd = models.CharField(max_length=500, blank=True)
    timeout_s = models.PositiveIntegerField(default=0)  # 0: no limit
    pid = models.PositiveIntegerField(null=True, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    killed_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    ending = models.CharField(max_length=10, choices=Ending.choices, blank=True)
    exit_code = models.IntegerField(null=True, blank=True)
    error = models.CharField(max_length=500, blank=True)
    left_out = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering: ClassVar = ["-started_at", "-pk"]
        indexes: ClassVar = [
            models.Index(fields=["sandbox", "-started_at"], name="command_of_sandbox"),
            models.Index(fields=["ended_at", "seen_at"], name="command_not_seen"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["sandbox", "request_key"], name="one_command_per_request"
            )
        ]

    def __str__(self) -> str:
        return self.text[:60]

    @property
    def is_running(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self.ended_at is None

    @property
    def has_failed(self) -> bool:
        """Whether it ended otherwise than with exit code 0."""
        return not self.is_running and self.exit_code != 0

    @property
    def seconds(self) -> float:
        """How long it ran, or has run so far."""
        return ((self.ended_at or timezone.now()) - self.started_at).total_seconds()


class CommandOutput(models.Model):
    """A piece of a command's output; `at` is the number of its first character."""

    class Stream(models.TextChoices):
        """Where it was written."""

        OUT = "out"
        ERR = "err"
        NOTE = "note"  # ours: what was left out

    command = models.ForeignKey(
        Command, on_delete=models.CASCADE, related_name="output"
    )
    at = models.PositiveBigIntegerField()
    stream = models.CharField(max_length=4, choices=Stream.choices)
    text = models.TextField()

    class Meta:
        ordering: ClassVar = ["at", "pk"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["command", "at"], name="output_in_order")
        ]

    def __str__(self) -> str:
        return f"{self.command_id} from {self.at}"


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
