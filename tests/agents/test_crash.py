"""A worker is killed in the middle; another takes over and nothing is done twice.

The workers are real `manage.py runagents` processes on a database file, the
model is a real server on loopback, commands run in a real sandbox.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from agents import actions
from agents.models import Agent, Mode, Run, ToolCall
from agents.transcript import Scribe
from sandboxes import gateway

from .fake_openai import FakeOpenAI, fake_openai

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    """The fake provider, served by a thread."""
    ready, ending = threading.Event(), asyncio.Event()
    found: list[FakeOpenAI] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with fake_openai() as fake:
            found.append(fake)
            ready.set()
            await ending.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(5)
    yield found[0]
    loop.call_soon_threadsafe(ending.set)
    thread.join()
    loop.close()


@pytest.fixture
def database(house, sandbox) -> str:
    """Where other processes find the test's database."""
    at = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{at['NAME']}"
    return "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**at)


class Worker:
    """A `runagents` process."""

    def __init__(self, database: str, provider: FakeOpenAI) -> None:
        """Start it; it claims what waits."""
        env = {
            **os.environ,
            "DATABASE_URL": database,
            "DJANGO_SETTINGS_MODULE": "kode_web.settings",
            "KODE_DATA": str(settings.DATA_DIR),
            "KODE_RUNTIME_URL": settings.RUNTIME_URL,
            "KODE_RUNTIME_KEY_FILE": str(settings.RUNTIME_KEY_FILE),
            "KODE_MODEL": "openai:fake",
            "OPENAI_BASE_URL": provider.url,
        }
        command = [sys.executable, "manage.py", "runagents", "--no-reaper"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=env)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait."""
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def worker(database: str, provider: FakeOpenAI) -> Iterator[Callable[[], Worker]]:
    """Start workers; what is left of them is killed."""
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(database, provider))
        return workers[-1]

    yield start
    for one in workers:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def until(condition: Callable[[], bool], timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def start(house, sandbox, script: dict[str, object], mode: Mode) -> Agent:
    prompt = json.dumps(script)
    return actions.start(house.bob, house.team, prompt, sandbox=sandbox, mode=mode)


def expire(agent: Agent) -> None:
    """What 30 seconds without a worker do."""
    agent.runs.filter(state=Run.State.RUNNING).update(lease_until=timezone.now())


def is_idle(agent: Agent) -> bool:
    agent.refresh_from_db()
    assert agent.state != Agent.State.ERROR, list(agent.runs.values("error"))
    return agent.state == Agent.State.IDLE


def lines(sandbox, path: str) -> int:
    ran = gateway.run(sandbox, f"cat {path}", timeout_s=20)
    return len(ran.stdout.splitlines())


def test_killed_in_the_middle_of_an_answer(house, sandbox, worker, provider) -> None:
    words = " ".join(f"word{n}" for n in range(30))
    command = {"cmd": "echo x >> /tmp/begun"}
    script = {"tools": [["bash_run", command]], "text": words, "delay_s": 0.1}
    agent = start(house, sandbox, script, Mode.AUTO)
    first = worker()
    until(lambda: agent.events.filter(type="text").exists())
    first.end(signal.SIGKILL)
    expire(agent)
    worker()
    until(lambda: is_idle(agent))
    assert provider.calls == [0, 1, 1]
    assert lines(sandbox, "/tmp/begun") == 1
    items = Scribe(agent, house.bob).page()["items"]
    assert [item.text.strip() for item in items if item.kind == "step"] == ["", words]
    seqs = list(agent.events.order_by("seq").values_list("seq", flat=True))
    assert seqs == sorted(set(seqs))


def test_killed_in_the_middle_of_a_command(house, sandbox, worker, provider) -> None:
    command = {"cmd": "echo x >> /tmp/begun; sleep 3"}
    script = {"tools": [["bash_run", command]], "text": "I will check."}
    agent = start(house, sandbox, script, Mode.AUTO)
    first = worker()
    until(lambda: agent.calls.exclude(pid=None).exists())
    first.end(signal.SIGKILL)
    expire(agent)
    worker()
    until(lambda: is_idle(agent))
    call = agent.calls.get()
    assert call.state == ToolCall.State.SEALED
    assert "may or may not" in call.result
    assert lines(sandbox, "/tmp/begun") == 1
    assert provider.calls == [0, 1]


def test_killed_while_a_person_decides(house, sandbox, worker, provider) -> None:
    command = {"cmd": "echo x >> /tmp/begun"}
    script = {"tools": [["bash_run", command]], "text": "Done."}
    agent = start(house, sandbox, script, Mode.APPROVAL)
    first = worker()
    until(lambda: agent.runs.filter(state=Run.State.PAUSED).exists())
    assert not agent.runs.filter(state=Run.State.RUNNING).exists()
    first.end(signal.SIGKILL)
    actions.decide(house.alice, agent, agent.calls.get().code, allow=True)
    worker()
    until(lambda: is_idle(agent))
    assert lines(sandbox, "/tmp/begun") == 1
    assert provider.calls == [0, 1]


def test_a_worker_ends_in_order_and_stops_at_once(house, sandbox, worker) -> None:
    script = {"tools": [["bash_run", {"cmd": "sleep 60"}]]}
    agent = start(house, sandbox, script, Mode.AUTO)
    only = worker()
    until(lambda: agent.calls.exclude(pid=None).exists())
    begun = time.monotonic()
    actions.stop(house.bob, agent)
    until(lambda: is_idle(agent))
    # A second on an idle machine; this test shares it with others.
    assert time.monotonic() - begun < 2
    assert agent.calls.get().state == ToolCall.State.FAILED
    assert only.end(signal.SIGTERM) == 0
