"""A team's own accounts on its page: who sets a key, and what is kept of it."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from sandboxes import actions, gateway
from sandboxes.models import BackendRow

from .fake_plane import Plane
from .test_backends import create, row_at

pytestmark = pytest.mark.django_db(transaction=True)
SET = reverse("sandboxes:own_backend", args=["house"])
TEAM = reverse("teams:detail", args=["house"])


def browser(person: Any) -> Client:
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def far(house, plane: Plane) -> Plane:
    """A plane that an administrator gave the house, still without a key."""
    urls = {"api_url": plane.url, "sandbox_url": plane.url}
    BackendRow.objects.create(name="far", title="Far", team=house.team, **urls)
    return plane


def test_a_key_is_set_used_and_removed(house, backend) -> None:
    row = row_at(backend, "near", team=house.team)
    BackendRow.objects.update(api_key="")
    gateway.forget_rows()
    client = browser(house.alice)
    assert "no key yet" in client.get(TEAM).text
    assert "near" not in gateway.backends_of(house.team)
    sent = {"name": "near", "key": f" {backend.api_key}\n"}
    assert client.post(SET, sent)["Location"] == TEAM
    html = client.get(TEAM).text
    assert backend.api_key not in html
    assert f"…{backend.api_key[-4:]}" in html
    made = create(house.bob, house.team, "near")
    refused = client.post(SET, {"name": "near", "action": "remove"})
    assert refused.status_code == 409
    assert made.name in refused.text
    actions.dispose(house.bob, made)
    client.post(SET, {"name": "near", "action": "remove"})
    row.refresh_from_db()
    assert (row.api_key, row.key_by) == ("", None)


def test_a_refused_key_is_not_kept(house, far: Plane) -> None:
    far.answer = 401
    sent = {"name": "far", "key": "e2b_wrong_key", "is_sure": "1"}
    answer = browser(house.alice).post(SET, sent)
    assert answer.status_code == 502
    assert "refuses this key" in answer.text
    assert "e2b_wrong_key" not in answer.text
    assert BackendRow.objects.get().api_key == ""


def test_a_silent_account_asks_whether_to_keep_it(house, settings) -> None:
    settings.E2B_DOMAIN = "nowhere.invalid"
    client, sent = browser(house.alice), {"key": "e2b_some_key_1234"}
    asked = client.post(SET, sent)
    assert asked.status_code == 503
    assert "although the backend does not answer" in asked.text
    assert not BackendRow.objects.exists()
    client.post(SET, sent | {"is_sure": "1"})
    row = BackendRow.objects.get()
    assert (row.team, row.domain, row.kind) == (house.team, "nowhere.invalid", "e2b")
    assert row.name in gateway.backends_of(house.team)
    assert row.name not in gateway.backends_of(house.charlie.own_team)
    client.post(SET, {"name": row.name, "action": "remove"})
    assert not BackendRow.objects.exists()


@pytest.mark.parametrize("key", ["", "short", "with a space in it", "é" * 20])
def test_what_is_no_key_is_said(house, far: Plane, key: str) -> None:
    answer = browser(house.alice).post(SET, {"name": "far", "key": key})
    assert answer.status_code == 400
    assert far.asked == []


@pytest.mark.parametrize(
    ("name", "status"), [("bob", 403), ("victor", 403), ("charlie", 404)]
)
def test_nobody_else_sets_or_removes_it(house, far: Plane, name, status) -> None:
    BackendRow.objects.update(api_key="e2b_kept_key")
    client = browser(getattr(house, name))
    for sent in ({"key": "e2b_other_key"}, {"action": "remove"}):
        assert client.post(SET, {"name": "far", **sent}).status_code == status
    assert BackendRow.objects.get().api_key == "e2b_kept_key"
    assert "Accounts of this team" not in client.get(TEAM).text


def test_another_teams_backend_is_not_found(house, far: Plane) -> None:
    """The administrator of one team names the row of another."""
    BackendRow.objects.update(team=house.charlie.own_team, api_key="e2b_kept_key")
    client = browser(house.alice)
    for sent in ({"key": "e2b_other_key"}, {"action": "remove"}):
        assert client.post(SET, {"name": "far", **sent}).status_code == 404
    assert BackendRow.objects.get().api_key == "e2b_kept_key"
