"""One-off commands: run, followed while they run, killed, taken up again.

The process that runs a command follows it to its end, whoever looks. When that
process dies the command runs on in its sandbox; `recover`, which the reaper calls,
follows it anew, and no command is ever begun a second time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from channels.db import database_sync_to_async
from django.db import IntegrityError
from django.utils import timezone

from kode_web.teams.models import User

from . import actions, gateway, ledger
from .errors import Gone, Invalid, NotFound, NotReady, SandboxError, TimedOut
from .ledger import Ending, Log, Stream
from .models import Command, CommandOutput, Sandbox
from .steps import spawn

logger = logging.getLogger(__name__)
MAX_CHARS = 16_000
# In one sandbox at a time: each holds a connection.
MAX_RUNNING = 20
# A running command that was not seen for so long is followed by nobody.
UNSEEN = timedelta(seconds=3 * ledger.SEEN_EVERY_S)
# One whose process died before its pid was known never began, or cannot be found.
NO_PID = timedelta(seconds=90)


def start(
    user: User, sandbox: Sandbox, text: str, *, key: str, cwd: str = "", limited: bool
) -> Command:
    """Run a command in the background; the same key runs it once.

    `limited` gives it the sandbox's command timeout. Raises Gone, NotReady, Invalid.
    """
    known = sandbox.commands.filter(request_key=key).first() if key else None
    if known:
        return known
    if not text.strip():
        raise Invalid("There is no command. Type one.")
    if len(text) > MAX_CHARS or "\0" in text + cwd:
        raise Invalid("This is too long for a command. Put it into a file.")
    if not sandbox.is_alive:
        raise Gone("This sandbox has ended. Make a new one.")
    if not sandbox.is_running:
        raise NotReady(f"This sandbox is {sandbox.state}. Resume it first.")
    running = sandbox.commands.filter(ended_at=None).count()
    if running >= MAX_RUNNING:
        raise NotReady(f"{running} commands run already. Kill one first.")
    limit = sandbox.command_timeout_s if limited else 0
    fields = {"request_key": key} if key else {}
    try:
        command = ledger.begin(
            sandbox, text, actor=user, cwd=cwd, timeout_s=limit, **fields
        )
    except IntegrityError:
        return sandbox.commands.get(request_key=key)
    actions.touch(sandbox)
    # A copy of its own: the caller's may be read anew at any time.
    spawn(_run(Command.objects.select_related("sandbox").get(pk=command.pk)))
    return command


async def _run(command: Command) -> None:
    """Run it to its end; the outermost frame of a task."""
    try:
        await follow(command, envs=command.sandbox.envs)
    except TimedOut:
        if command.pid:
            with contextlib.suppress(SandboxError):
                await gateway.kill_process(command.sandbox, command.pid)
    except SandboxError as error:
        logger.info("command %s: %s", command.code, error)
    except Exception:
        logger.exception("command %s", command.code)


async def follow(
    command: Command,
    *,
    envs: dict[str, str],
    started: Callable[[int], Awaitable[None]] | None = None,
    heard: Callable[[str], None] | None = None,
) -> int:
    """Run a command that was written down, and write down what it says and how it
    ends; its exit code.

    `started` is told its pid, `heard` what it prints. Raises SandboxError, TimedOut
    while it may still run, and CancelledError.
    """
    sandbox, log = command.sandbox, Log(command, heard=heard)
    writing = asyncio.create_task(log.run())

    async def noted(pid: int) -> None:
        await database_sync_to_async(_note_pid, thread_sensitive=False)(command, pid)
        if started:
            await started(pid)

    try:
        exit_code = await gateway.run_streamed(
            sandbox,
            command.text,
            cwd=command.cwd or sandbox.workdir or None,
            envs=envs,
            timeout_s=command.timeout_s,
            on_stdout=log.hear(Stream.OUT),
            on_stderr=log.hear(Stream.ERR),
            on_pid=noted,
        )
        await log.close(Ending.EXITED, exit_code=exit_code)
        return exit_code
    except TimedOut:
        await log.close(Ending.TIMED_OUT)
        raise
    except SandboxError as error:
        ending = Ending.LOST if command.pid else Ending.FAILED
        await log.close(ending, error=str(error))
        raise
    except asyncio.CancelledError:
        # Stopped by a person; its process is ended by who cancels.
        await asyncio.shield(log.close(Ending.KILLED))
        raise
    finally:
        writing.cancel()


def _note_pid(command: Command, pid: int) -> None:
    command.pid = pid
    command.save(update_fields=["pid"])


def kill(user: User, command: Command) -> None:
    """End a command and all that it started; one that has ended is left so."""
    if not command.is_running:
        return
    if command.pid is None:
        raise NotReady("It is just being started. Try again in a moment.")
    rows = Command.objects.filter(pk=command.pk, ended_at=None, killed_by=None)
    rows.update(killed_by=user)
    kill = f"pkill -KILL -s {command.pid}; kill -KILL {command.pid} 2>/dev/null; true"
    gateway.run(command.sandbox, kill, user="root", cwd="/", timeout_s=5)


def recover() -> None:
    """Follow anew what runs and is seen by nobody."""
    now = timezone.now()
    unseen = Command.objects.filter(ended_at=None, seen_at__lt=now - UNSEEN)
    for command in unseen.select_related("sandbox"):
        sandbox = command.sandbox
        if not sandbox.is_alive:
            ledger.finish(command, Ending.LOST, error="The sandbox ended.")
        elif command.pid is None:
            if now - command.started_at > NO_PID:
                error = "Kode Web was ended before the command began."
                ledger.finish(command, Ending.LOST, error=error)
        elif sandbox.is_running and _claim(command):
            spawn(_rejoin(command))


def _claim(command: Command) -> bool:
    """Be the one who follows it now."""
    rows = Command.objects.filter(pk=command.pk, seen_at=command.seen_at, ended_at=None)
    return rows.update(seen_at=timezone.now()) == 1


async def _rejoin(command: Command) -> None:
    """Follow it from now on; what it said meanwhile is lost."""
    assert command.pid is not None
    at = await database_sync_to_async(_end_of, thread_sensitive=False)(command)
    log = Log(command, at=at)
    log.add(Stream.NOTE, "\n[nobody followed it here; some output is missing]\n")
    writing = asyncio.create_task(log.run())
    try:
        async with asyncio.timeout(_left_s(command)):
            exit_code = await gateway.rejoin_streamed(
                command.sandbox,
                command.pid,
                on_stdout=log.hear(Stream.OUT),
                on_stderr=log.hear(Stream.ERR),
            )
        await log.close(Ending.EXITED, exit_code=exit_code)
    except NotFound:
        error = "It ended while nobody followed it: its exit code is not known."
        await log.close(Ending.LOST, error=error)
    except TimeoutError:
        with contextlib.suppress(SandboxError):
            await gateway.kill_process(command.sandbox, command.pid)
        await log.close(Ending.TIMED_OUT)
    except SandboxError as error:
        logger.info("command %s: %s", command.code, error)  # tried again later
    finally:
        writing.cancel()


def _left_s(command: Command) -> float | None:
    """Seconds until its time is over, None when it has no limit."""
    return command.timeout_s - command.seconds if command.timeout_s else None


def _end_of(command: Command) -> int:
    """The number of the character after all that is kept."""
    last = CommandOutput.objects.filter(command=command).last()
    return last.at + len(last.text) if last else 0


def output(command: Command, after: int = 0) -> list[CommandOutput]:
    """What is kept of its output from a character on, in order."""
    rows = list(command.output.filter(at__gte=after))
    cut = command.output.filter(at__lt=after).last()
    if cut and cut.at + len(cut.text) > after:
        cut.at, cut.text = after, cut.text[after - cut.at :]
        rows.insert(0, cut)
    return rows
