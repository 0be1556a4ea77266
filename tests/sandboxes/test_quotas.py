"""Quotas hold whoever races for them, on both databases."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COUNT = (
    "from django.db.models import Count; from kode_web.teams.models import Team;"
    "print([t.n for t in Team.objects.filter(slug__startswith='race-{limit}-')"
    ".annotate(n=Count('sandboxes'))])"
)


def run(url: str, *words: str) -> subprocess.Popen[str]:
    """A Python process of the product on that database."""
    known = {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "kode_web.settings"}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | known,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed; fails the test when the process failed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def race(url: str, limit: int, rounds: int, *, processes: int, how: str = "") -> None:
    words = ["-m", "tests.sandboxes.race", str(limit), str(rounds)]
    words += [str(20 // processes), *([how] if how else [])]
    for process in [run(url, *words) for _ in range(processes)]:
        finish(process)


def counts(url: str, limit: int) -> list[int]:
    """How many sandboxes each round's team got."""
    shell = ["manage.py", "shell", "--no-imports", "-c", COUNT.format(limit=limit)]
    found: list[int] = [
        int(n) for n in finish(run(url, *shell)).strip("[]\n").split(",")
    ]
    return found


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a SQLite file with our tables."""
    url = f"sqlite:///{tmp_path_factory.mktemp('race') / 'race.sqlite3'}"
    finish(run(url, "manage.py", "migrate", "--verbosity=0"))
    return url


@pytest.fixture(scope="module")
def migrated(postgres: str) -> str:
    """The address of a PostgreSQL with our tables."""
    finish(run(postgres, "manage.py", "migrate", "--verbosity=0"))
    return postgres


@pytest.mark.parametrize("limit", [1, 5])
def test_sqlite_never_goes_above_the_quota(sqlite, limit) -> None:
    race(sqlite, limit, 5, processes=1)
    assert counts(sqlite, limit) == [limit] * 5


@pytest.mark.parametrize(("limit", "processes"), [(1, 1), (2, 2), (5, 2)])
def test_postgres_never_goes_above_the_quota(migrated, limit, processes) -> None:
    race(migrated, limit, 20, processes=processes)
    assert counts(migrated, limit) == [limit] * 20


def test_without_the_lock_the_race_is_lost(migrated) -> None:
    """The test above can fail: this is what it guards against."""
    race(migrated, 3, 20, processes=1, how="unlocked")
    assert max(counts(migrated, 3)) > 3
