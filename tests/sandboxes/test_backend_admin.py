"""Backends in the admin: keys are tried, kept and never shown."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from sandboxes import actions, gateway
from sandboxes.models import BackendRow

from .fake_plane import Plane
from .test_backends import create, row_at

pytestmark = pytest.mark.django_db(transaction=True)
ADD = reverse("admin:sandboxes_backendrow_add")


@pytest.fixture
def client(house) -> Client:
    """The browser of the house's administrator."""
    house.alice.is_superuser = house.alice.is_staff = True
    house.alice.save()
    client = Client()
    client.force_login(house.alice)
    return client


def fields(**given: Any) -> dict[str, Any]:
    """What a filled-in form sends."""
    usual = {"name": "cloud", "title": "Cloud", "kind": "cluster", "is_enabled": "on"}
    return usual | {"domain": "", "api_url": "", "sandbox_url": "", **given}


def at(runtime: Any, **given: Any) -> dict[str, Any]:
    urls = {"api_url": runtime.api_url, "sandbox_url": runtime.sandbox_url}
    return fields(**urls, new_key=runtime.api_key, **given)


def edit(row: BackendRow) -> str:
    return reverse("admin:sandboxes_backendrow_change", args=[row.pk])


def test_a_backend_is_added_and_its_key_is_gone_from_view(
    client, house, backend
) -> None:
    assert client.post(ADD, at(backend)).status_code == 302
    row = BackendRow.objects.get()
    assert (row.api_key, row.key_by) == (backend.api_key, house.alice)
    made = create(house.bob, house.team, "cloud")
    actions.dispose(house.bob, made)
    listed = client.get(reverse("admin:sandboxes_backendrow_changelist"))
    for html in (listed.text, client.get(edit(row)).text):
        assert backend.api_key not in html
        assert row.key_hint in html


def test_a_refused_key_is_not_saved(client, plane: Plane) -> None:
    plane.answer = 401
    urls = {"api_url": plane.url, "sandbox_url": plane.url}
    sent = fields(**urls, new_key="e2b_wrong_key", is_sure="on")
    answer = client.post(ADD, sent)
    assert "refuses this key" in answer.text
    assert "e2b_wrong_key" not in answer.text
    assert not BackendRow.objects.exists()


def test_what_is_no_e2b_is_not_saved(client, plane: Plane) -> None:
    plane.answer = 404
    urls = {"api_url": plane.url, "sandbox_url": plane.url}
    answer = client.post(ADD, fields(**urls, new_key="e2b_some_key"))
    assert "answered 404" in answer.text
    assert not BackendRow.objects.exists()


def test_a_silent_one_is_saved_when_one_is_sure(client, house) -> None:
    urls = {"api_url": "http://127.0.0.1:9", "sandbox_url": "http://127.0.0.1:9"}
    sent = fields(**urls, new_key="e2b_some_key")
    assert "does not answer" in client.post(ADD, sent).text
    assert not BackendRow.objects.exists()
    assert client.post(ADD, sent | {"is_sure": "on"}).status_code == 302
    assert "cloud" in gateway.backends_of(house.team)


def test_a_new_address_takes_the_key_again(client, backend) -> None:
    row = row_at(backend, "cloud")
    moved = at(backend, name="") | {"new_key": "", "api_url": "https://evil.example"}
    assert "Enter it again" in client.post(edit(row), moved).text
    row.refresh_from_db()
    assert row.api_url == backend.api_url


def test_an_edit_without_a_key_leaves_it(client, backend) -> None:
    row = row_at(backend, "cloud")
    sent = at(backend) | {"new_key": "", "title": "New"}
    assert client.post(edit(row), sent).status_code == 302
    row.refresh_from_db()
    assert (row.title, row.api_key) == ("New", backend.api_key)


def test_another_account_is_refused_while_its_sandboxes_live(
    client, house, backend, plane: Plane
) -> None:
    row = row_at(backend, "cloud")
    house.team.sandboxes.create(
        name="x", backend="cloud", sandbox_id="ifar", request_key="x", state="running"
    )
    urls = {"api_url": plane.url, "sandbox_url": plane.url}
    sent = fields(**urls, new_key="e2b_other_key")
    assert "another account" in client.post(edit(row), sent).text
    plane.add("ifar")
    assert client.post(edit(row), sent).status_code == 302


def test_one_in_use_is_not_deleted(client, house, backend) -> None:
    row = row_at(backend, "cloud")
    used = house.team.sandboxes.create(
        name="busy", backend="cloud", request_key="x", state="paused"
    )
    one = reverse("admin:sandboxes_backendrow_delete", args=[row.pk])
    assert "busy" in client.get(one).text
    client.post(one, {"post": "yes"})
    many = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    client.post(reverse("admin:sandboxes_backendrow_changelist"), many)
    assert BackendRow.objects.filter(pk=row.pk).exists()
    used.delete()
    client.post(one, {"post": "yes"})
    assert not BackendRow.objects.exists()


def test_only_an_administrator_comes_here(house) -> None:
    for person in (house.bob, house.victor, house.charlie, house.alice):
        client = Client()
        client.force_login(person)
        assert client.get(ADD).status_code in (302, 403)
