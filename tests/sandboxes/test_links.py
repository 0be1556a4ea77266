"""Download links: good for whoever has them, for a while, as far as their maker."""

import io
import re
import zipfile
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from kode_web.teams.models import Membership
from sandboxes import actions, gateway
from sandboxes.models import DownloadLink

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def folder(sandbox):
    gateway.run(sandbox, "mkdir -p /tmp/l; echo '<b>hi' > /tmp/l/a.html")
    return sandbox


def make(user, sandbox, path: str = "/tmp/l/a.html", hours: str = "1"):
    client = Client()
    client.force_login(user)
    at = reverse("sandboxes:links", args=[sandbox.code])
    return client.post(at, {"path": path, "hours": hours})


def address(answer) -> str:
    found = re.search(r"/sandboxes/links/[\w-]+/", answer.content.decode())
    assert found
    return found[0]


def get(at: str):
    return Client(headers={"accept": "application/json"}).get(at)


def test_a_link_works_without_an_account(house, folder) -> None:
    at = address(make(house.bob, folder))
    answer = get(at)
    assert b"".join(answer.streaming_content) == b"<b>hi\n"
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"] == 'attachment; filename="a.html"'
    assert "sandbox" in answer["Content-Security-Policy"]
    assert DownloadLink.objects.get().used_count == 1
    event = folder.events.get(kind="file.downloaded")
    assert (event.actor, event.data["by"]) == (None, "link")


def test_a_folder_comes_as_a_zip(house, folder) -> None:
    packed = b"".join(get(address(make(house.bob, folder, "/tmp/l"))).streaming_content)
    assert zipfile.ZipFile(io.BytesIO(packed)).read("l/a.html") == b"<b>hi\n"


def test_only_its_hash_is_kept(house, folder) -> None:
    key = address(make(house.bob, folder)).split("/")[-2]
    row = DownloadLink.objects.get()
    assert key not in (row.key_hash, row.code, row.path)


def test_it_ends_by_time_by_hand_and_with_its_maker(house, folder) -> None:
    never = get(reverse("sandboxes:link", args=["x" * 32]))
    at = address(make(house.bob, folder))
    DownloadLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    old = get(at)
    assert (old.status_code, old.content) == (404, never.content)

    at = address(make(house.bob, folder))
    client = Client()
    client.force_login(house.bob)
    row = DownloadLink.objects.get()
    client.post(reverse("sandboxes:revoke_link", args=[folder.code, row.code]))
    assert get(at).content == never.content

    at = address(make(house.bob, folder))
    Membership.objects.filter(user=house.bob, team=house.team).delete()
    folder.owner = house.alice
    folder.save()
    assert get(at).content == never.content


def test_one_of_a_sandbox_that_stopped_says_so(house, folder) -> None:
    at = address(make(house.bob, folder))
    actions.pause(house.bob, folder)
    assert get(at).status_code == 409
    actions.dispose(house.bob, folder)
    assert get(at).status_code == 409


@pytest.mark.parametrize("hours", ["", "0", "2", "9999", "-1", "x"])
def test_a_life_is_one_of_three(house, folder, hours: str) -> None:
    assert make(house.bob, folder, hours=hours).status_code == 400


def test_who_may_make_and_see_them(house, folder) -> None:
    assert make(house.victor, folder).status_code == 403
    assert make(house.charlie, folder).status_code == 404
    address(make(house.bob, folder))
    at = reverse("sandboxes:links", args=[folder.code])
    for user, status in ((house.alice, 200), (house.victor, 403), (house.charlie, 404)):
        client = Client()
        client.force_login(user)
        assert client.get(at).status_code == status


def test_what_is_not_there_gets_no_link(house, folder) -> None:
    assert make(house.bob, folder, "/tmp/none").status_code == 404
    assert make(house.bob, folder, "/dev/null").status_code == 400
    assert make(house.bob, folder, "/tmp/none").status_code == 404
