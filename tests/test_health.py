"""Whether this instance serves, as load balancers see it."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from agents.models import Agent, Run
from sandboxes.gateway import control

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client() -> Client:
    """Anybody."""
    control._statuses.clear()
    return Client(HTTP_HOST="localhost")


def test_healthz_says_that_it_serves(client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readyz_says_that_sandboxes_can_be_made(client, backend) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "backends": {"local": "ok"},
        "agents": "ok",
    }


def test_readyz_says_when_no_backend_answers(client, settings, tmp_path) -> None:
    settings.RUNTIME_URL = "http://127.0.0.1:9"
    settings.RUNTIME_KEY_FILE = str(tmp_path / "none")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["backends"] == {"local": "no answer"}
    assert "127.0.0.1" not in answer.content.decode()


def test_readyz_says_when_turns_wait(client, house) -> None:
    agent = Agent.objects.create(team=house.team, owner=house.bob, name="a")
    long_ago = timezone.now() - timedelta(minutes=5)
    Run.objects.create(agent=agent, created_at=long_ago)
    assert client.get("/readyz").json()["agents"] == "turns wait"
