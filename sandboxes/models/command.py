"""The commands that were run in a sandbox, and their output."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from kode_web.teams.models import User, new_code

from .sandbox import Sandbox


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
