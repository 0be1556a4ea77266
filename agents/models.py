"""Agents, their turns, and all that a turn leaves behind."""

from typing import Any, ClassVar, Self

from django.db import models
from django.utils import timezone

from kode_web.teams.models import Team, User, new_code
from sandboxes.models import Sandbox


class Mode(models.TextChoices):
    """How much an agent may do without asking."""

    AUTO = "auto", "Auto: asks only for what its template names"
    APPROVAL = "approval", "Approval: asks before every command"
    READONLY = "readonly", "Read only: may look, may not change"


class AgentTemplate(models.Model):
    """What an agent starts from; without a team it is built in.

    `tools` names the tools it has, empty means all. `require`, `allow` and
    `deny` are tool names for `policy`. `limits` may hold steps, tool_calls,
    tokens, cost_usd and seconds, each for one turn.
    """

    code = models.CharField(max_length=32, unique=True, default=new_code)
    team = models.ForeignKey(
        Team, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    slug = models.SlugField()
    name = models.CharField(max_length=80)
    version = models.PositiveIntegerField(default=1)
    description = models.CharField(max_length=200, blank=True)
    system_prompt = models.TextField(blank=True)
    model = models.CharField(max_length=120, blank=True)
    tools = models.JSONField(default=list, blank=True)
    mode = models.CharField(max_length=8, choices=Mode.choices, default=Mode.APPROVAL)
    require = models.JSONField(default=list, blank=True)
    allow = models.JSONField(default=list, blank=True)
    deny = models.JSONField(default=list, blank=True)
    limits = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar = ["team_id", "name", "-version"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["team", "slug", "version"],
                name="one_agent_template_version",
            ),
            models.UniqueConstraint(
                fields=["slug", "version"],
                condition=models.Q(team=None),
                name="one_built_in_agent_template",
            ),
            models.CheckConstraint(
                condition=models.Q(mode__in=Mode.values), name="known_template_mode"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def snapshot(self) -> dict[str, Any]:
        """What an agent keeps of it, so that later edits do not change the agent."""
        names = (
            *("slug", "name", "version", "system_prompt", "model"),
            *("tools", "require", "allow", "deny", "limits"),
        )
        return {name: getattr(self, name) for name in names}


class AgentRows(models.QuerySet["Agent"]):
    """Many agents."""

    def alive(self) -> Self:
        """Those not disposed."""
        return self.filter(ended_at=None)

    def recent(self) -> Self:
        """Newest use first."""
        return self.order_by("-used_at")


class Agent(models.Model):
    """A chat whose tools work in one sandbox, or in none until the first call.

    `template` is the snapshot it was made from. `seq_head` is the seq of its
    newest event; whoever holds this row's lock may append. `held_at` is set
    while a person keeps it paused, so that no turn begins.
    """

    class State(models.TextChoices):
        """What it is doing."""

        IDLE = "idle"
        QUEUED = "queued"
        RUNNING = "running"
        PAUSED = "paused"
        ERROR = "error"

    code = models.CharField(max_length=32, unique=True, default=new_code)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="agents")
    owner = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="agents"
    )
    name = models.CharField(max_length=80)
    state = models.CharField(max_length=8, choices=State.choices, default=State.IDLE)
    sandbox = models.ForeignKey(
        Sandbox,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="agents",
    )
    template = models.JSONField(default=dict)
    mode = models.CharField(max_length=8, choices=Mode.choices, default=Mode.APPROVAL)
    seq_head = models.BigIntegerField(default=0)
    todos = models.JSONField(default=list, blank=True)
    usage = models.JSONField(default=dict, blank=True)
    forked_from = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="forks"
    )
    held_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    used_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = AgentRows.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["team", "-used_at"], name="agent_team_used"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(state__in=["idle", "queued", "running"])
                | models.Q(state__in=["paused", "error"]),
                name="known_agent_state",
            ),
            models.CheckConstraint(
                condition=models.Q(mode__in=Mode.values), name="known_agent_mode"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_alive(self) -> bool:
        """Whether it can still be talked to."""
        return self.ended_at is None

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs or waits for its place."""
        return self.state in (self.State.QUEUED, self.State.RUNNING)

    @property
    def needs_you(self) -> bool:
        """Whether it waits for a person's decision."""
        return self.state == self.State.PAUSED and self.held_at is None

    @property
    def is_stoppable(self) -> bool:
        """Whether there is a turn to stop."""
        return self.is_alive and (self.is_busy or self.needs_you)

    @property
    def takes_now(self) -> bool:
        """Whether a message begins a turn at once instead of waiting for one."""
        return not self.held_at and self.state in (self.State.IDLE, self.State.ERROR)

    @property
    def shown_state(self) -> tuple[str, str]:
        """The state's shape and its word."""
        if not self.is_alive:
            return "gone", "disposed"
        if self.needs_you:
            return "waiting", "needs you"
        if self.state == self.State.RUNNING:
            return "working", "working"
        return self.state, self.state

    @property
    def todos_done(self) -> int:
        """How many things to do are done."""
        return sum(todo["status"] == "completed" for todo in self.todos)

    @property
    def todo_now(self) -> str:
        """What it works on by its list, empty for nothing."""
        titles = (t["title"] for t in self.todos if t["status"] == "in_progress")
        return next(titles, "")


class Run(models.Model):
    """One stretch of a turn: from its place in the queue to its end.

    A worker owns a running one by its lease; `attempt` is the fence, since each
    claim raises it and every write of a worker names its own. `is_begun` says
    that the prompt is in the stored conversation; `usage` is the chat's total.
    """

    class Kind(models.TextChoices):
        """Why it was queued."""

        USER = "user"
        APPROVAL = "approval"
        CONTINUE = "continue"

    class State(models.TextChoices):
        """Where it is in its life."""

        QUEUED = "queued"
        RUNNING = "running"
        PAUSED = "paused"
        DONE = "done"
        INTERRUPTED = "interrupted"
        ERROR = "error"

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="runs")
    author = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.USER)
    state = models.CharField(max_length=11, choices=State.choices, default=State.QUEUED)
    prompt = models.TextField(blank=True)
    is_begun = models.BooleanField(default=False)
    model = models.CharField(max_length=120, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    stop_asked_at = models.DateTimeField(null=True, blank=True)
    usage = models.JSONField(default=dict, blank=True)
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["state", "created_at"], name="run_state_created"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["agent"],
                condition=models.Q(state__in=["queued", "running"]),
                name="one_active_run_per_agent",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["queued", "running", "paused"])
                | models.Q(state__in=["done", "interrupted", "error"]),
                name="known_run_state",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.agent_id} ({self.state})"


class Conversation(models.Model):
    """The model library's record of a conversation; `code` is the agent's."""

    code = models.CharField(primary_key=True, max_length=64)
    head = models.CharField(max_length=64, null=True)  # noqa: DJ001  None: no message
    revision = models.CharField(max_length=64)
    scope = models.CharField(max_length=64, blank=True)
    body = models.JSONField()
    updated_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.code


class Entry(models.Model):
    """One message in the model library's own JSON; forks share entries."""

    code = models.CharField(primary_key=True, max_length=64)
    parent = models.CharField(max_length=64, null=True)  # noqa: DJ001  None: the first
    message = models.TextField()

    class Meta:
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return self.code


class AgentEvent(models.Model):
    """One thing that browsers are told of an agent, numbered without a gap.

    `channel` is progress (what it says and does), control (what a person must
    decide) or monitor (how it fares). The rows of streamed text are deleted at
    the end of a run, when the whole text has a row of its own.
    """

    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="events")
    seq = models.BigIntegerField()
    run = models.ForeignKey(Run, null=True, on_delete=models.CASCADE)
    channel = models.CharField(max_length=8)
    type = models.CharField(max_length=20)
    data = models.JSONField(default=dict)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["agent", "seq"], name="one_event_per_seq"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.seq}"


class ToolCall(models.Model):
    """One tool call: journal, audit record and approval in one.

    `step` is the number of the model's answer in the conversation, so that a
    provider may use the same `call_id` again. `result` is what the model was
    told, `output` what people may read of a command, bounded.
    """

    class State(models.TextChoices):
        """Where it is in its life."""

        PENDING = "pending"
        APPROVED = "approved"
        EXECUTING = "executing"
        DONE = "done"
        FAILED = "failed"
        DENIED = "denied"
        SEALED = "sealed"

    code = models.CharField(max_length=32, unique=True, default=new_code)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="calls")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="calls")
    step = models.PositiveIntegerField()
    call_id = models.CharField(max_length=120)
    name = models.CharField(max_length=40)
    args = models.JSONField(default=dict)
    state = models.CharField(max_length=9, choices=State.choices)
    result = models.TextField(blank=True)
    output = models.TextField(blank=True)
    pid = models.PositiveIntegerField(null=True)
    exit_code = models.IntegerField(null=True)
    asked_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    decided_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    decided_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["agent", "step", "call_id"], name="one_row_per_tool_call"
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["pending", "approved", "executing"])
                | models.Q(state__in=["done", "failed", "denied", "sealed"]),
                name="known_tool_call_state",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.state})"

    @property
    def is_over(self) -> bool:
        """Whether it has a result."""
        return self.state in ("done", "failed", "denied", "sealed")

    @property
    def shown(self) -> str:
        """A command's output, any other tool's result."""
        return self.output if self.name == "bash_run" else self.result

    @property
    def seconds(self) -> float | None:
        """How long it ran, None when it did not."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


class QueuedMessage(models.Model):
    """What a person said while a turn was running; it starts the next turn."""

    code = models.CharField(max_length=32, unique=True, default=new_code)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="queued")
    author = models.ForeignKey(User, null=True, on_delete=models.SET_NULL)
    text = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar = ["pk"]

    def __str__(self) -> str:
        return f"queued for {self.agent_id}"
