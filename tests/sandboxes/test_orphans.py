"""The administrators' page of what is out of step."""

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from kode_web.teams.models import Team, User
from sandboxes import reaper
from sandboxes.models import Orphan, Sandbox, State

from .fake_plane import Plane

pytestmark = pytest.mark.django_db(transaction=True)
OLD = 2 * reaper.ORPHAN_AGE.total_seconds()


@pytest.fixture
def admin(house) -> Client:
    user = User.objects.create_superuser("root@example.test", "pass word")
    client = Client(headers={"accept": "text/html"})
    client.force_login(user)
    return client


@pytest.fixture
def full(house, plane: Plane, settings) -> Plane:
    """A plane with an orphan, a stranger, a young one, and one with a row."""
    ours = {"kode_instance": settings.INSTANCE_ID}
    plane.add("iorphan", age_s=OLD, kode_op="a" * 32, **ours)
    plane.add("iyoung", age_s=1, kode_op="b" * 32, **ours)
    plane.add("istranger", age_s=OLD)
    row = Sandbox.objects.create(
        team=house.team,
        name="known",
        backend="local",
        sandbox_id="iknown",
        request_key="k",
        state=State.RUNNING,
    )
    plane.add("iknown", age_s=OLD, kode_op=row.op_id, **ours)
    return plane


def listing(client: Client) -> str:
    answer = client.get(reverse("sandboxes:orphans"))
    assert answer.status_code == 200
    return answer.content.decode()


def test_what_has_no_row_is_listed(admin, full) -> None:
    Orphan.objects.create(backend="local", sandbox_id="iorphan")
    text = listing(admin)
    assert "iorphan" in text
    assert "ours, seen" in text
    assert "istranger" in text
    assert "iyoung" not in text
    assert "iknown" not in text


def change(client: Client, sandbox_id: str, action: str):
    data = {"sandbox_id": sandbox_id, "backend": "local", "action": action}
    return client.post(reverse("sandboxes:change_orphan"), data)


def test_ours_is_ended_and_nobody_elses(admin, full) -> None:
    assert change(admin, "iorphan", "end").status_code == 302
    assert change(admin, "istranger", "end").status_code == 404
    assert change(admin, "iknown", "end").status_code == 404
    assert change(admin, "inone", "end").status_code == 410
    assert set(full.machines) == {"iyoung", "istranger", "iknown"}


def test_one_is_taken_in(admin, full) -> None:
    assert change(admin, "istranger", "adopt").status_code == 302
    assert Sandbox.objects.get(sandbox_id="istranger").state == State.RUNNING
    assert ">istranger</code>" not in listing(admin)


def test_what_waits_is_said(admin, full, house) -> None:
    Sandbox.objects.update(missed_at=timezone.now())
    assert "did not have it" in listing(admin)
    Sandbox.objects.update(
        state=State.KILLING, state_at=timezone.now() - 2 * reaper.ALARM
    )
    assert "cannot be ended" in listing(admin)


def test_a_silent_backend_is_named(admin, full) -> None:
    full.answer = 500
    assert "does not answer" in listing(admin)


def test_nobody_else_finds_it(house, full) -> None:
    for user in (house.alice, house.bob, house.victor, house.charlie):
        client = Client()
        client.force_login(user)
        assert client.get(reverse("sandboxes:orphans")).status_code == 404
        assert change(client, "iorphan", "end").status_code == 404
    assert Team.objects.exists()
    assert "iorphan" in full.machines
