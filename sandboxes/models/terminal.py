"""The shells of a sandbox, what they showed, and what was recorded of it."""

from typing import ClassVar

from django.db import models
from django.utils import timezone

from kode_web.teams.models import User, new_code

from .sandbox import Sandbox


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
