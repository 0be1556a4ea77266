"""The tools of an agent, closed over its one sandbox.

No tool takes the id of a sandbox, a team or a person. The methods' signatures
and docstrings are what the model is told. What goes wrong is returned as text
that says what to do next; the caller marks it as failed by `ToolFailed`.
"""

import asyncio
import contextlib
import posixpath
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Literal, TypedDict

from channels.db import database_sync_to_async
from django.db import transaction

from kode_web.teams.quotas import QuotaExceeded
from sandboxes import exec, gateway, ledger
from sandboxes.errors import SandboxError, TimedOut
from sandboxes.models import Command, Sandbox
from sandboxes.text import UNFINISHED, plain

from . import actions, events, journal
from .events import Draft, Writer
from .models import Agent, Run, ToolCall

# The call that the current task executes.
current_call: ContextVar[ToolCall] = ContextVar("current_call")

HOME = "/home/user"
COMMAND_TIMEOUT_S = 120
MAX_COMMAND_TIMEOUT_S = 3600
READY_S = 90  # until a new or paused sandbox must have come up
# What the model sees of a command: its beginning, and more of its end.
HEAD_CHARS, TAIL_CHARS = 4_000, 12_000
# What people see of it.
KEPT_CHARS = 200_000
FILE_BYTES = 1 << 20
READ_LINES, LINE_CHARS = 2_000, 2_000
TODO_LIMIT = 50


class ToolFailed(Exception):
    """The tool did not do it; the text is for the model."""


class Todo(TypedDict):
    """One thing to do."""

    id: str
    title: str
    status: Literal["pending", "in_progress", "completed"]


class Output:
    """A command's output: streamed to people, and cut to size for the model."""

    def __init__(self, writer: Writer, call: ToolCall) -> None:
        """Nothing yet."""
        self._writer, self._code = writer, call.code
        self._head, self._tail, self._left_out, self.kept = "", "", 0, ""
        self._rest = ""

    def add(self, text: str) -> None:
        """More of it, as it comes."""
        text = self._rest + text
        # What may be the first half of a terminal code waits for the other half.
        cut = UNFINISHED.search(text)
        end = cut.start() if cut else len(text)
        self._rest, text = text[end:], plain(text[:end])
        room = HEAD_CHARS - len(self._head)
        self._head += text[:room]
        self._tail += text[room:]
        self._left_out += max(0, len(self._tail) - TAIL_CHARS)
        self._tail = self._tail[-TAIL_CHARS:]
        piece = text[: KEPT_CHARS - len(self.kept)]
        if piece:
            self._writer.put("output", call=self._code, at=len(self.kept), d=piece)
            self.kept += piece

    def for_model(self, how_it_ended: str) -> str:
        """All of it, or its two ends and how much lies between, and the end."""
        between = f"\n[{self._left_out} characters left out]\n"
        text = f"{self._head}{between if self._left_out else ''}{self._tail}"
        lead = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{lead}[{how_it_ended}]"


class Toolbox:
    """The tools for one run of one agent."""

    def __init__(self, run: Run, writer: Writer) -> None:
        """Bind to the run; the sandbox is looked up at each call."""
        self._run, self._writer = run, writer
        self.outputs: dict[int, Output] = {}
        self.exits: dict[int, int] = {}

    def all(self) -> dict[str, Callable[..., Awaitable[str]]]:
        """The tools by name."""
        tools = (
            *(self.bash_run, self.fs_read, self.fs_write),
            *(self.todo_read, self.todo_write),
        )
        return {tool.__name__: tool for tool in tools}

    async def bash_run(self, cmd: str, timeout_s: int = COMMAND_TIMEOUT_S) -> str:
        """Run a shell command in the sandbox and return its output and exit code.

        Args:
            cmd: The command, for bash.
            timeout_s: Seconds until it is killed.
        """
        call = current_call.get()
        sandbox = await self._ready()
        output = self.outputs[call.pk] = Output(self._writer, call)
        limit = max(1, min(timeout_s, MAX_COMMAND_TIMEOUT_S))
        begun = time.monotonic()
        try:
            code = await self._run_command(sandbox, cmd, limit, output)
        except TimedOut:
            raise ToolFailed(output.for_model(f"killed after {limit} s")) from None
        except SandboxError as error:
            raise ToolFailed(output.for_model(str(error))) from error
        self.exits[call.pk] = code
        seconds = time.monotonic() - begun
        return output.for_model(f"exit code {code}, {seconds:.1f} s")

    async def fs_read(self, path: str, offset: int = 1, limit: int = READ_LINES) -> str:
        """Read a text file of the sandbox.

        Args:
            path: The file; relative ones start at the working directory.
            offset: The first line to return, from 1.
            limit: How many lines to return at most.
        """
        sandbox = await self._ready()
        try:
            data = await gateway.read_file(
                sandbox, _absolute(sandbox, path), limit_bytes=FILE_BYTES
            )
        except SandboxError as error:
            raise ToolFailed(f"Cannot read {path}: {error}") from error
        return _lines(data, max(1, offset), max(1, min(limit, READ_LINES)))

    async def fs_write(self, path: str, content: str) -> str:
        """Write a text file of the sandbox, replacing what it held.

        Args:
            path: The file; relative ones start at the working directory.
            content: All that it shall hold.
        """
        data = content.encode()
        if len(data) > FILE_BYTES:
            raise ToolFailed(f"More than {FILE_BYTES} bytes: write it in parts.")
        sandbox = await self._ready()
        try:
            await gateway.write_file(sandbox, _absolute(sandbox, path), data)
        except SandboxError as error:
            raise ToolFailed(f"Cannot write {path}: {error}") from error
        return f"Wrote {len(data)} bytes to {path}."

    async def todo_read(self) -> str:
        """Return the list of things to do."""
        return await database_sync_to_async(_read_todos)(self._run)

    async def todo_write(self, todos: list[Todo]) -> str:
        """Replace the list of things to do. At most one may be in progress.

        Args:
            todos: The whole list; each has an id of its own.
        """
        if problem := todo_problem(todos):
            raise ToolFailed(problem)
        return await database_sync_to_async(_write_todos)(self._run, todos)

    async def _ready(self) -> Sandbox:
        """The agent's sandbox, running; made or resumed when it must be."""
        deadline = time.monotonic() + READY_S
        has_waited = False
        # It may call the backend: not in the thread that all queries share.
        lend = database_sync_to_async(actions.lend, thread_sensitive=False)
        try:
            while True:
                sandbox = await lend(self._run)
                if sandbox.is_running:
                    return sandbox
                has_waited = True
                if time.monotonic() > deadline:
                    raise ToolFailed("The sandbox did not come up. Try again later.")
                await asyncio.sleep(0.2)
        except QuotaExceeded as error:
            raise ToolFailed(f"There is no sandbox: {error}") from error
        except SandboxError as error:
            raise ToolFailed(f"There is no sandbox: {error}") from error
        finally:
            if has_waited:
                self._writer.put("sandbox")

    async def _run_command(
        self, sandbox: Sandbox, cmd: str, timeout_s: int, output: Output
    ) -> int:
        """Run it to its end; when this task is cancelled, kill it first."""
        call, pids = current_call.get(), []

        async def started(pid: int) -> None:
            pids.append(pid)
            await database_sync_to_async(journal.record_pid)(self._run, call, pid)

        begin = database_sync_to_async(_begin_command, thread_sensitive=False)
        command = await begin(self._run, sandbox, cmd, timeout_s)
        try:
            return await exec.follow(
                command, started=started, heard=output.add, envs=sandbox.envs
            )
        except (asyncio.CancelledError, TimedOut):
            for pid in pids:
                with contextlib.suppress(SandboxError):
                    await asyncio.shield(gateway.kill_process(sandbox, pid))
            raise


def _begin_command(run: Run, sandbox: Sandbox, cmd: str, timeout_s: int) -> Command:
    """A line in the ledger of the sandbox's commands."""
    agent = Agent.objects.get(pk=run.agent_id)
    return ledger.begin(
        sandbox,
        cmd,
        actor=None,
        timeout_s=timeout_s,
        agent_code=agent.code,
        agent_name=agent.name[:80],
    )


def _absolute(sandbox: Sandbox, path: str) -> str:
    return posixpath.join(sandbox.workdir or HOME, path)


def _lines(data: bytes, offset: int, limit: int) -> str:
    """Lines of a text file, and where to go on."""
    if b"\0" in data[:8192]:
        return f"[not a text file, {len(data)} bytes]"
    lines = data.decode(errors="replace").splitlines()
    part = [line[:LINE_CHARS] for line in lines[offset - 1 : offset - 1 + limit]]
    rest = len(lines) - (offset - 1 + len(part))
    if rest > 0:
        part.append(f"[{rest} more lines; go on with offset={offset + limit}]")
    if len(data) >= FILE_BYTES:
        part.append(f"[only the first {FILE_BYTES} bytes were read]")
    return "\n".join(part)


def todo_problem(todos: list[Todo]) -> str:
    """What is wrong with a list of things to do; empty when nothing is."""
    ids = [todo["id"] for todo in todos]
    if len(todos) > TODO_LIMIT:
        return f"At most {TODO_LIMIT} todos."
    if len(set(ids)) < len(ids):
        return "Each todo needs an id of its own."
    if sum(todo["status"] == "in_progress" for todo in todos) > 1:
        return "At most one todo may be in progress."
    return ""


def todo_text(todos: list[Any]) -> str:
    """The list as the model reads it."""
    if not todos:
        return "The list is empty."
    marks = {"pending": " ", "in_progress": ">", "completed": "x"}
    return "\n".join(f"[{marks[t['status']]}] {t['id']}: {t['title']}" for t in todos)


def _read_todos(run: Run) -> str:
    return todo_text(Agent.objects.get(pk=run.agent_id).todos)


def _write_todos(run: Run, todos: list[Todo]) -> str:
    """Save the list, under the run's fence."""
    with transaction.atomic():
        events.hold(run)
        Agent.objects.filter(pk=run.agent_id).update(todos=todos)
        events.append(run.agent_id, Draft("todos"), run_id=run.pk)
    return todo_text(todos)
