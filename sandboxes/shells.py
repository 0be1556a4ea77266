"""The rows of terminals: what is true of a shell when no process follows it.

`keep` stores a shell's newest output, so that a web process that begins anew shows
the same screen; it is encrypted, because it may hold what a person typed or saw.
"""

import contextlib
import zlib

from django.utils import timezone

from kode_web.teams import secrets
from kode_web.teams.models import User

from . import actions, gateway
from .errors import NotFound, NotReady, SandboxError
from .models import Sandbox, Terminal, TerminalOutput

MAX_TERMINALS = 20


def create_row(sandbox: Sandbox, user: User, command: str = "") -> Terminal:
    """A new terminal; its shell starts when the first viewer comes.

    A command is typed into it then.
    """
    alive = sandbox.terminals.filter(closed_at=None).count()
    if alive >= MAX_TERMINALS:
        raise NotReady(f"{alive} shells are open already. Close one first.")
    number = sandbox.terminals.count() + 1
    terminal = Terminal.objects.create(
        sandbox=sandbox, name=f"Shell {number}", opened_by=user, command=command
    )
    actions.record(sandbox, "terminal.opened", actor=user, name=terminal.name)
    return terminal


def close(user: User, terminal: Terminal) -> None:
    """End a shell for everybody."""
    # The row first: whoever else sees the shell end then has nothing to record.
    if not _closed(terminal, None):
        return
    actions.record(terminal.sandbox, "terminal.closed", actor=user, name=terminal.name)
    if terminal.pid is not None:
        command = f"kill -HUP {terminal.pid}; sleep 0.2; kill -KILL {terminal.pid}"
        with contextlib.suppress(SandboxError):
            gateway.run(terminal.sandbox, command, user="root", timeout_s=5)


def folder(terminal: Terminal) -> str:
    """The folder where a shell is now. Raises NotFound when it has ended."""
    gone = "This shell has ended. Open another one."
    if terminal.pid is None or terminal.closed_at is not None:
        raise NotFound(gone)
    command = f"readlink -z /proc/{terminal.pid}/cwd"
    found = gateway.run(terminal.sandbox, command, timeout_s=5)
    if found.exit_code:
        raise NotFound(gone)
    return found.stdout.rstrip("\0")


def find(sandbox: Sandbox, code: str) -> Terminal:
    """An open terminal of the sandbox. Raises NotFound."""
    terminal = sandbox.terminals.filter(code=code).first()
    if terminal is None:
        raise NotFound("There is no such terminal.")
    if terminal.closed_at is not None:
        raise NotFound("This shell has ended.")
    return terminal


def opened(terminal: Terminal, pid: int) -> None:
    """Its shell runs."""
    terminal.pid = pid
    terminal.save(update_fields=["pid"])


def _closed(terminal: Terminal, exit_code: int | None) -> bool:
    """Close the row; False when it was closed before."""
    rows = Terminal.objects.filter(pk=terminal.pk, closed_at=None)
    TerminalOutput.objects.filter(terminal=terminal).delete()
    return rows.update(closed_at=timezone.now(), exit_code=exit_code) == 1


def ended(terminal: Terminal, exit_code: int | None) -> None:
    """The shell ended by itself."""
    if _closed(terminal, exit_code):
        actions.record(
            terminal.sandbox,
            "terminal.closed",
            name=terminal.name,
            exit_code=exit_code,
        )


def keep(terminal: Terminal, output: bytes) -> None:
    """Store the newest output of a shell that is open."""
    sealed = secrets.seal(zlib.compress(output, 1))
    if Terminal.objects.filter(pk=terminal.pk, closed_at=None).exists():
        TerminalOutput.objects.update_or_create(
            terminal=terminal, defaults={"sealed": sealed}
        )


def kept(terminal: Terminal) -> bytes:
    """The output that was stored last; nothing if none was."""
    row = TerminalOutput.objects.filter(terminal=terminal).first()
    return zlib.decompress(secrets.unseal(bytes(row.sealed))) if row else b""
