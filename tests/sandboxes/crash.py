"""A process that is killed at one point of an action; run by test_reaper.

python -m tests.sandboxes.crash <point> <pk of the team's user> <pk of the team>
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django

django.setup()

from kode_web.teams.models import Team, User  # noqa: E402  apps must be ready
from sandboxes import actions, gateway, steps  # noqa: E402
from sandboxes.actions import CreateRequest  # noqa: E402

# Point -> the module's function at whose call the process dies, and whether the
# call is still made.
POINTS: dict[str, tuple[Any, str, bool]] = {
    "create.before_remote": (gateway, "create", False),
    "create.after_remote": (gateway, "create", True),
    "create.before_row_runs": (steps, "step", False),
    "create.after_row_runs": (steps, "step", True),
    "pause.before_remote": (gateway, "pause", False),
    "pause.after_remote": (gateway, "pause", True),
    "dispose.before_remote": (gateway, "kill", False),
    "dispose.after_remote": (gateway, "kill", True),
    "dispose.before_row_ends": (steps, "end", False),
}


def die_at(module: Any, name: str, *, call: bool) -> None:
    """Let this process be killed at the function."""
    real: Callable[..., Any] = getattr(module, name)

    def deadly(*arguments: Any, **options: Any) -> None:
        if call:
            real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, deadly)


def main(point: str, user_pk: str, team_pk: str) -> None:
    """Do the point's action; it never ends."""
    user, team = User.objects.get(pk=user_pk), Team.objects.get(pk=team_pk)
    actions.steps.PATIENCE_S = 60
    verb = point.partition(".")[0]
    if verb == "create":
        die_at(*POINTS[point][:2], call=POINTS[point][2])
        actions.create(user, team, CreateRequest(), key="crash")
        return
    sandbox = actions.create(user, team, CreateRequest(), key="crash")
    die_at(*POINTS[point][:2], call=POINTS[point][2])
    getattr(actions, verb)(user, sandbox)


if __name__ == "__main__":
    main(*sys.argv[1:])
