"""People, a runtime with real sandboxes, and a sandbox to work in."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from kode_web.teams.access import own_team
from kode_web.teams.models import Membership, Role, Team, User
from sandboxes import actions, gateway
from sandboxes.actions import CreateRequest
from sandboxes.models import Sandbox, State
from tests.local.server import Runtime, start_runtime
from tests.services import postgres, redis

__all__ = ["postgres", "redis"]

READY_S = 60


@pytest.fixture(autouse=True)
def _no_rows_of_the_last_test() -> None:
    """Backends are remembered for a moment; the database is another one now."""
    gateway.forget_rows()


@dataclass
class House:
    """One team with alice (admin), bob (member) and victor (viewer); charlie is a
    stranger with a team of his own."""

    team: Team
    alice: User
    bob: User
    victor: User
    charlie: User


@pytest.fixture
def house(db: None) -> House:
    """The people of every test."""
    team = Team.objects.create(name="House", slug="house")
    people = {}
    roles = {"alice": Role.ADMIN, "bob": Role.MEMBER, "victor": Role.VIEWER}
    for name in (*roles, "charlie"):
        user = get_user_model().objects.create_user(f"{name}@example.test", "pass word")
        people[name] = user
        if name in roles:
            Membership.objects.create(team=team, user=user, role=roles[name])
        own_team(user)
    return House(team, **people)


@pytest.fixture(scope="session")
def backend_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A local runtime of the test run."""
    try:
        runtime = start_runtime(Path(tmp_path_factory.mktemp("backend")))
    except RuntimeError as error:
        if "sandboxes" in os.environ.get("KODE_REQUIRE", ""):
            raise
        pytest.skip(f"no sandboxes here: {error}")
    yield runtime
    runtime.stop()


@pytest.fixture
def backend(backend_runtime: Runtime, settings: Any) -> Runtime:
    """The product's settings, pointed at the runtime."""
    settings.RUNTIME_URL = backend_runtime.api_url
    settings.RUNTIME_KEY_FILE = str(backend_runtime.root / "api-key")
    settings.DEFAULT_BACKEND = "local"
    gateway.breaker("local").note(failed=False)
    return backend_runtime


def until_running(sandbox: Sandbox) -> Sandbox:
    """Wait until it runs."""
    deadline = time.monotonic() + READY_S
    while sandbox.state != State.RUNNING and time.monotonic() < deadline:
        time.sleep(0.05)
        sandbox.refresh_from_db()
    assert sandbox.state == State.RUNNING, sandbox.error
    return sandbox


@pytest.fixture
def sandbox(
    house: House, backend: Runtime, transactional_db: None
) -> Iterator[Sandbox]:
    """A running sandbox that bob made in the house."""
    request = CreateRequest(name="box")
    row = actions.create(house.bob, house.team, request, key="fixture")
    yield until_running(row)
    row.refresh_from_db()
    backend.call("DELETE", f"/sandboxes/{row.sandbox_id}")
