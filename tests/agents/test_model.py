"""Which model answers, and what the offline one does."""

import pytest

from agents import model
from agents.models import Mode, Run
from sandboxes.models import Command

from .conftest import latest_run
from .fake_openai import fake_openai
from .test_turns import start


@pytest.fixture
def keys(settings):
    """No key at all; the test sets its own."""
    settings.MODEL = settings.ANTHROPIC_API_KEY = ""
    settings.OPENAI_API_KEY = settings.OPENAI_BASE_URL = ""
    return settings


def test_without_a_key_the_command_model_answers(keys) -> None:
    choice = model.choose()
    assert choice.is_offline
    assert choice.badge == "Offline command model, not AI"


def test_a_key_chooses_its_provider(keys) -> None:
    keys.OPENAI_API_KEY = "k"
    assert model.choose().provider == "openai"
    keys.ANTHROPIC_API_KEY = "k"
    assert model.choose().provider == "anthropic"


def test_the_setting_and_the_template_name_a_model(keys) -> None:
    keys.MODEL = "openai:some"
    assert model.choose().name == "openai:some"
    assert model.choose("anthropic:other").name == "anthropic:other"


@pytest.mark.parametrize("name", ["anthropic:x", "openai:x", "nobody:x", "openai:"])
def test_a_model_that_cannot_work_is_an_error(keys, name: str) -> None:
    keys.MODEL = name
    with pytest.raises(model.ModelMissing):
        model.build(model.choose())


def test_a_server_of_ones_own_needs_a_model_name(keys) -> None:
    keys.OPENAI_BASE_URL = "http://127.0.0.1:1/v1"
    with pytest.raises(model.ModelMissing, match="KODE_MODEL"):
        model.build(model.choose())


@pytest.mark.parametrize(
    ("line", "tool", "args"),
    [
        ("run ls -la", "bash_run", {"cmd": "ls -la"}),
        ("  run   ls ", "bash_run", {"cmd": "ls"}),
        ("read /etc/hosts", "fs_read", {"path": "/etc/hosts"}),
        ("write a.txt b c", "fs_write", {"path": "a.txt", "content": "b c\n"}),
        ("todos", "todo_read", {}),
    ],
)
def test_a_line_names_a_call(line: str, tool: str, args: dict[str, str]) -> None:
    assert model.parse_command(line) == (tool, args)


@pytest.mark.parametrize(
    "line", ["hello", "run", "write a.txt", "", "running", "Write a poem"]
)
def test_other_lines_name_none(line: str) -> None:
    assert model.parse_command(line) is None


@pytest.mark.django_db(transaction=True)
async def test_several_lines_are_several_calls(house, sandbox, keys, work) -> None:
    prompt = "write /tmp/a.txt hi\nrun cat /tmp/a.txt\ntodo one; two"
    agent = await start(house, prompt, sandbox=sandbox, mode=Mode.AUTO)
    await work()
    await agent.arefresh_from_db()
    names = [c.name async for c in agent.calls.order_by("pk")]
    assert names == ["fs_write", "bash_run", "todo_write"]
    assert (await agent.calls.aget(name="bash_run")).output == "hi\n"
    command = await Command.objects.select_related("sandbox").aget()
    assert (command.agent_code, command.exit_code) == (agent.code, 0)
    kept = [piece.text async for piece in command.output.all()]
    assert "".join(kept) == "hi\n"
    assert [todo["title"] for todo in agent.todos] == ["one", "two"]
    answers = [e.data async for e in agent.events.filter(type="answer")]
    assert all(data["model"] == model.OFFLINE for data in answers)
    assert "hi" in answers[-1]["text"]


@pytest.mark.django_db(transaction=True)
async def test_anything_else_gets_the_help_text(house, keys, work) -> None:
    agent = await start(house, "Write me a poem")
    await work()
    answer = await agent.events.aget(type="answer")
    assert "No language model is connected" in answer.data["text"]


@pytest.mark.django_db(transaction=True)
async def test_a_failing_provider_is_never_replaced(house, keys, work) -> None:
    keys.OPENAI_BASE_URL, keys.MODEL = "http://127.0.0.1:9/v1", "openai:some"
    agent = await start(house, "run echo hi", mode=Mode.AUTO)
    await work()
    run = await latest_run(agent)
    assert run.state == Run.State.ERROR
    assert "does not answer" in run.error
    assert not await agent.calls.aexists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("status", "words"), [(401, "refuses the key"), (404, "does not know this model")]
)
async def test_a_refusal_says_what_to_do(
    house, keys, work, status: int, words: str
) -> None:
    async with fake_openai() as fake:
        fake.refuses = status
        keys.OPENAI_BASE_URL, keys.MODEL = fake.url, "openai:some"
        keys.OPENAI_API_KEY = "sk-very-secret"
        agent = await start(house, "Hello")
        await work()
    run = await latest_run(agent)
    assert run.state == Run.State.ERROR
    assert words in run.error
    assert "sk-very-secret" not in str([e.data async for e in agent.events.all()])


@pytest.mark.django_db(transaction=True)
async def test_a_real_wire_carries_a_turn(house, keys, work) -> None:
    async with fake_openai() as fake:
        keys.OPENAI_BASE_URL, keys.MODEL = fake.url, "openai:some"
        agent = await start(house, "Hello")
        await work()
    await agent.arefresh_from_db()
    answer = await agent.events.aget(type="answer")
    assert answer.data["text"].strip() == "Hello."
    assert answer.data["model"] == "openai:some"
    assert (agent.usage["input"], agent.usage["output"]) == (10, 5)
