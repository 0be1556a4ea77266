"""The list of sandboxes at 10, 1,000 and 10,000 of them, in a database of its own.

Run: .venv/bin/python -m bench.listing [--rounds 30]
Prints queries and milliseconds of one page; the sizes are asked in turn, so that
the ratios hold on a busy machine too.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

SIZES = (10, 1_000, 10_000)


def prepared() -> dict[int, object]:
    """A signed-in browser for a team of each size."""
    from django.core.management import call_command
    from django.test import Client
    from django.utils import timezone

    from kode_web.teams.access import own_team
    from kode_web.teams.models import User
    from sandboxes.models import Sandbox, State

    call_command("migrate", verbosity=0)
    clients: dict[int, object] = {}
    for size in SIZES:
        user = User.objects.create_user(f"p{size}@example.com", None)
        team = own_team(user)
        Sandbox.objects.bulk_create(
            Sandbox(
                team=team,
                owner=user,
                name=f"box-{number}",
                backend="local",
                request_key=str(number),
                state=State.PAUSED if number % 3 else State.GONE,
                used_at=timezone.now(),
            )
            for number in range(size)
        )
        clients[size] = Client()
        clients[size].force_login(user)
    return clients


def measure(clients: dict[int, object], rounds: int) -> None:
    """Ask each in turn, print the table."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    times: dict[int, list[float]] = {size: [] for size in clients}
    queries = {}
    for _ in range(rounds):
        for size, client in clients.items():
            with CaptureQueriesContext(connection) as asked:
                begun = time.perf_counter()
                assert client.get("/sandboxes/", headers=HEADERS).status_code == 200
                times[size].append((time.perf_counter() - begun) * 1000)
            queries[size] = len(asked)
    base = statistics.median(times[SIZES[0]])
    print(f"{'sandboxes':>10}{'queries':>10}{'p50, ms':>10}{'ratio':>8}")
    for size, values in times.items():
        middle = statistics.median(values)
        print(f"{size:10}{queries[size]:10}{middle:10.1f}{middle / base:8.2f}")


HEADERS = {"host": "localhost:8000"}


def main() -> None:
    """Set up Django on a scratch folder, measure, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=30)
    rounds = options.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "KODE_DATA": folder,
            "DJANGO_SETTINGS_MODULE": "kode_web.settings",
        }
        (Path(folder) / "static").mkdir()
        import django

        django.setup()
        measure(prepared(), rounds)


if __name__ == "__main__":
    main()
