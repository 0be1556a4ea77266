"""Pages of agents: who sees and does what, with and without JavaScript."""

from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from agents import actions
from agents.models import Agent, AgentTemplate, Mode, ToolCall

pytestmark = pytest.mark.django_db

POSTS = ["send", "stop", "pause", "resume", "fork", "dispose"]


@pytest.fixture
def agent(house) -> Agent:
    return actions.start(house.bob, house.team, "Count the files\nbeta gamma")


@pytest.fixture
def call(agent: Agent) -> ToolCall:
    """A command that waits for a decision."""
    run = agent.runs.get()
    agent.runs.update(state="paused")
    Agent.objects.update(state="paused")
    return ToolCall.objects.create(
        agent=agent,
        run=run,
        step=1,
        call_id="c",
        name="bash_run",
        args={"cmd": "ls"},
        state="pending",
    )


def browser(person: Any) -> Client:
    client = Client()
    client.force_login(person)
    return client


def url(name: str, agent: Agent) -> str:
    return reverse(f"agents:{name}", args=[agent.code])


def test_the_list_shows_the_teams_agents(house, agent) -> None:
    assert agent.name in browser(house.victor).get(reverse("agents:list")).text
    assert agent.name not in browser(house.charlie).get(reverse("agents:list")).text


def test_the_page_shows_chat_and_composer(house, agent) -> None:
    html = browser(house.bob).get(url("detail", agent)).text
    assert "Count the files" in html
    assert f'data-url="/ws/agents/{agent.code}/"' in html
    assert f'data-seq="{agent.events.count()}"' in html
    assert 'name="text"' in html


def test_the_offline_model_is_named_on_the_page(house, agent) -> None:
    html = browser(house.bob).get(url("detail", agent)).text
    assert "Offline command model, not AI" in html


def test_a_viewer_reads_and_cannot_write(house, agent) -> None:
    client = browser(house.victor)
    assert 'name="text"' not in client.get(url("detail", agent)).text
    for name in POSTS:
        assert client.post(url(name, agent), {"text": "x"}).status_code == 403


def test_a_stranger_equals_missing(house, agent) -> None:
    client = browser(house.charlie)
    assert client.get(url("detail", agent)).status_code == 404
    for name in POSTS:
        assert client.post(url(name, agent), {"text": "x"}).status_code == 404


def test_who_is_not_signed_in_is_asked_to(agent) -> None:
    answer = Client().get(url("detail", agent))
    assert answer.status_code == 302
    assert reverse(settings.LOGIN_URL) in answer["Location"]


@pytest.mark.parametrize("name", ["send", "stop", "pause", "resume", "fork"])
def test_changes_are_posts(house, agent, name: str) -> None:
    assert browser(house.bob).get(url(name, agent)).status_code == 405


def test_a_prompt_alone_starts_an_agent(house) -> None:
    answer = browser(house.bob).post(reverse("agents:new"), {"prompt": "Hello"})
    agent = Agent.objects.get()
    assert answer["Location"] == url("detail", agent)
    assert agent.owner == house.bob
    assert agent.mode == Mode.APPROVAL
    assert agent.template["slug"] == "coder"


def test_a_form_starts_an_agent_in_a_team(house) -> None:
    template = AgentTemplate.objects.get(slug="analyst", team=None)
    data = {"prompt": "Hi", "template": template.code, "mode": "readonly"}
    new = reverse("agents:new") + f"?team={house.team.slug}"
    browser(house.bob).post(new, data)
    agent = Agent.objects.get()
    assert (agent.team, agent.mode) == (house.team, "readonly")
    assert agent.template["slug"] == "analyst"


def test_a_viewer_starts_nothing_in_the_team(house) -> None:
    new = reverse("agents:new") + f"?team={house.team.slug}"
    assert browser(house.victor).post(new, {"prompt": "Hi"}).status_code == 403
    assert not Agent.objects.exists()


def test_an_empty_prompt_is_refused(house) -> None:
    answer = browser(house.bob).post(reverse("agents:new"), {"prompt": "  "})
    assert answer.status_code == 200
    assert not Agent.objects.exists()


def test_a_message_is_sent_by_plain_post(house, agent) -> None:
    answer = browser(house.bob).post(url("send", agent), {"text": "And more"})
    assert answer["Location"] == url("detail", agent)
    assert agent.queued.get().text == "And more"


def test_a_quiet_form_gets_no_page(house, agent) -> None:
    headers = {"HX-Request": "true", "Accept": "application/json"}
    client = browser(house.bob)
    answer = client.post(url("send", agent), {"text": "more"}, headers=headers)
    assert answer.status_code == 204
    refused = client.post(url("send", agent), {"text": ""}, headers=headers)
    assert refused.status_code == 400
    assert "Say what" in refused.json()["error"]


def test_a_decision_is_made_by_plain_post(house, agent, call) -> None:
    decide = reverse("agents:decide", args=[agent.code, call.code])
    data = {"decision": "deny", "note": "not now"}
    assert browser(house.alice).post(decide, data).status_code == 302
    call.refresh_from_db()
    assert (call.state, call.note) == ("denied", "not now")
    assert call.decided_by == house.alice


def test_a_second_decision_is_a_conflict(house, agent, call) -> None:
    decide = reverse("agents:decide", args=[agent.code, call.code])
    browser(house.alice).post(decide, {"decision": "deny"})
    headers = {"Accept": "application/json"}
    answer = browser(house.bob).post(decide, {"decision": "allow"}, headers=headers)
    assert answer.status_code == 409
    call.refresh_from_db()
    assert call.state == "denied"


def test_anything_but_allow_denies(house, agent, call) -> None:
    decide = reverse("agents:decide", args=[agent.code, call.code])
    browser(house.bob).post(decide, {"decision": "ALLOW"})
    call.refresh_from_db()
    assert call.state == "denied"


def test_another_agents_call_cannot_be_decided(house, agent, call) -> None:
    other = actions.start(house.bob, house.team, "Other")
    decide = reverse("agents:decide", args=[other.code, call.code])
    headers = {"Accept": "application/json"}
    answer = browser(house.bob).post(decide, {"decision": "allow"}, headers=headers)
    assert answer.status_code == 400
    call.refresh_from_db()
    assert call.state == "pending"


def test_a_paused_agent_waits(house, agent) -> None:
    client = browser(house.bob)
    client.post(url("pause", agent))
    agent.refresh_from_db()
    assert (agent.state, agent.needs_you) == ("paused", False)
    client.post(url("resume", agent))
    agent.refresh_from_db()
    assert agent.state == "queued"


def test_disposing_asks_first(house, agent) -> None:
    client = browser(house.bob)
    assert "Dispose" in client.get(url("dispose", agent)).text
    client.post(url("dispose", agent))
    agent.refresh_from_db()
    assert not agent.is_alive
    assert "Count the files" in client.get(url("detail", agent)).text


def test_the_admin_keeps_chats_to_itself(house, agent) -> None:
    house.alice.is_staff = house.alice.is_superuser = True
    house.alice.save()
    client = browser(house.alice)
    for model in ("agent", "run"):
        row = agent if model == "agent" else agent.runs.get()
        page = client.get(reverse(f"admin:agents_{model}_change", args=[row.pk]))
        assert page.status_code == 200
        assert "beta gamma" not in page.text
