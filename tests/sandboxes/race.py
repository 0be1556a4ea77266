"""Many threads that all want the last places of a quota; run by test_quotas.

    python -m tests.sandboxes.race <limit> <rounds> <threads> [unlocked]

Each round has a team of its own, that all processes of a race share. `unlocked`
takes the lock away, to show that the race is lost without it.
"""

import secrets
import sys
import threading

import django

django.setup()

from django.db import connection  # noqa: E402  apps must be ready
from django.db.models import QuerySet  # noqa: E402

from kode_web.teams import quotas  # noqa: E402
from kode_web.teams.models import Team  # noqa: E402
from sandboxes.models import Sandbox  # noqa: E402


def reserve(team: Team, limit: int, start: threading.Barrier) -> None:
    """Try to make one sandbox, at the same moment as all others."""
    start.wait()
    try:
        quotas.reserve(
            team,
            what="running sandboxes",
            holding=Sandbox.objects.filter(team=team).holding,
            limit=limit,
            make=lambda: Sandbox.objects.create(
                team=team,
                name="racer",
                backend="local",
                request_key=secrets.token_hex(16),
            ),
        )
    except quotas.QuotaExceeded:
        pass
    finally:
        connection.close()


def main(limit: int, rounds: int, count: int) -> None:
    """Run all rounds. A thread that fails otherwise is shown, and fails the race."""
    failed: list[threading.ExceptHookArgs] = []
    threading.excepthook = failed.append
    for number in range(rounds):
        name = f"race-{limit}-{number}"
        team, _ = Team.objects.get_or_create(slug=name, defaults={"name": name})
        start = threading.Barrier(count)
        threads = [
            threading.Thread(target=reserve, args=(team, limit, start))
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        raise SystemExit(f"{len(failed)} failed: {failed[0].exc_value!r}")


if __name__ == "__main__":
    if "unlocked" in sys.argv:
        QuerySet.select_for_update = lambda self: self  # type: ignore[method-assign]
    main(*map(int, sys.argv[1:4]))
