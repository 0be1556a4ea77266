"""The timeline of a sandbox: filtered, paged, downloaded, never changed."""

import csv
import io
import json

import pytest
from django.test import Client
from django.urls import reverse

from sandboxes import activity_views
from sandboxes.models import Event, Sandbox

pytestmark = pytest.mark.django_db


@pytest.fixture
def row(house) -> Sandbox:
    """One that has ended, with five events of bob's."""
    row = house.team.sandboxes.create(
        name="old", backend="local", request_key="old", state="gone"
    )
    kinds = ("sandbox.created", "terminal.opened", "recording.started", "file.uploaded")
    for kind in kinds:
        Event.objects.create(sandbox=row, actor=house.bob, kind=kind)
    Event.objects.create(
        sandbox=row, kind="command.started", data={"text": "=cmd|' /C calc'!A0, é"}
    )
    return row


def get(person, row: Sandbox, query: str = ""):
    client = Client()
    client.force_login(person)
    return client.get(reverse("sandboxes:activity", args=[row.code]) + query)


def kinds(answer) -> list[str]:
    return [event.kind for event in answer.context["events"]]


def test_the_newest_comes_first_and_an_end_keeps_it(house, row) -> None:
    found = kinds(get(house.victor, row))
    assert (found[0], found[-1]) == ("command.started", "sandbox.created")


@pytest.mark.parametrize(
    ("show", "found"),
    [
        ("state", ["sandbox.created"]),
        ("terminals", ["recording.started", "terminal.opened"]),
        ("agents", []),
        ("nonsense", [""] * 5),
    ],
)
def test_it_is_filtered_by_kind(house, row, show: str, found: list[str]) -> None:
    seen = kinds(get(house.victor, row, f"?show={show}"))
    assert len(seen) == len(found)
    assert seen == found or show == "nonsense"


def test_pages_follow_one_another_without_gap(house, row, monkeypatch) -> None:
    monkeypatch.setattr(activity_views, "PER_PAGE", 2)
    seen, query = [], ""
    while True:
        answer = get(house.victor, row, query)
        seen += kinds(answer)
        if not answer.context["older"]:
            break
        query = f"?before={answer.context['older']}"
    assert seen == kinds_in_order(row)


def kinds_in_order(row: Sandbox) -> list[str]:
    return list(row.events.order_by("-pk").values_list("kind", flat=True))


@pytest.mark.parametrize("before", ["x", "-1", "9" * 40])
def test_a_wrong_place_is_the_newest(house, row, before: str) -> None:
    assert len(kinds(get(house.victor, row, f"?before={before}"))) == 5


def test_downloads_hold_all_of_it_and_no_formula(house, row) -> None:
    text = b"".join(get(house.victor, row, "?format=csv")).decode()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["kind"] for line in lines] == kinds_in_order(row)[::-1]
    assert lines[0]["actor"] == house.bob.email
    text = b"".join(get(house.victor, row, "?format=jsonl&show=commands")).decode()
    assert [json.loads(line)["data"]["text"] for line in text.splitlines()] == [
        "=cmd|' /C calc'!A0, é"
    ]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx"])
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    assert activity_views._harmless(text) == f"'{text}"
    assert activity_views._harmless("x=1") == "x=1"


@pytest.mark.parametrize("query", ["", "?format=csv", "?show=state"])
def test_a_stranger_finds_nothing(house, row, query: str) -> None:
    assert get(house.charlie, row, query).status_code == 404
