"""`manage.py checksandbox`: one command in one sandbox, on the product's own path."""

import secrets
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from kode_web.teams.models import Membership, Role, Team, User
from sandboxes import actions, gateway
from sandboxes.errors import SandboxError
from sandboxes.models import Sandbox, State

EMAIL = "check@localhost"
POLL_S = 0.1


class Command(BaseCommand):
    """Makes a sandbox, runs `echo` in it, prints its output, disposes it."""

    help = "Run one command in a new sandbox; fails unless it really ran there."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take how long the sandbox may need to start."""
        parser.add_argument("--wait", type=float, default=60.0, help="seconds")

    def handle(self, *args: Any, **options: Any) -> None:
        """Create, run, dispose; whatever happens, nothing is left running."""
        user, team = _checker()
        request = actions.CreateRequest(name="check", timeout_s=120)
        try:
            sandbox = actions.create(user, team, request, key=secrets.token_hex(16))
        except SandboxError as error:
            raise CommandError(f"no sandbox: {error}") from error
        try:
            _wait(sandbox, State.RUNNING, options["wait"])
            self.stdout.write(_echo(sandbox))
        except SandboxError as error:
            raise CommandError(f"no command ran: {error}") from error
        finally:
            actions.dispose(user, sandbox)
            _wait(sandbox, State.GONE, options["wait"])


def _checker() -> tuple[User, Team]:
    """The user and the team that checks run as; he has no password."""
    user = User.objects.filter(email=EMAIL).first()
    if user is None:
        user = User.objects.create_user(EMAIL, is_active=False)
    team, _ = Team.objects.get_or_create(slug="check", defaults={"name": "Check"})
    Membership.objects.get_or_create(
        team=team, user=user, defaults={"role": Role.MEMBER}
    )
    return user, team


def _wait(sandbox: Sandbox, wanted: State, seconds: float) -> None:
    """Until the row is in the state. Raises CommandError when it will not be."""
    deadline = time.monotonic() + seconds
    while sandbox.state != wanted:
        if sandbox.state == State.FAILED or time.monotonic() > deadline:
            reason = sandbox.error or f"it is still {sandbox.state}"
            raise CommandError(f"the sandbox is not {wanted}: {reason}")
        time.sleep(POLL_S)
        sandbox.refresh_from_db()


def _echo(sandbox: Sandbox) -> str:
    """What `echo` printed inside; only a real shell can know the product."""
    factors = secrets.randbelow(9000) + 1000, secrets.randbelow(9000) + 1000
    product = factors[0] * factors[1]
    sum_ = f"$(({factors[0]} * {factors[1]}))"
    command = f'echo "Hello from sandbox $(id -un)@$(uname -n): {sum_}"'
    result = gateway.run(sandbox, command, timeout_s=30)
    if result.exit_code or str(product) not in result.stdout:
        raise CommandError(f"echo failed ({result.exit_code}): {result.stderr}")
    return result.stdout.rstrip("\n")
