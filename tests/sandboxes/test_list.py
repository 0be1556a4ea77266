"""The list of sandboxes: filtered, sorted and paged by its address; many at once."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from sandboxes import list_views
from sandboxes.models import Sandbox, State

pytestmark = pytest.mark.django_db
LIST = "/sandboxes/"


def made(house, count: int, **fields) -> list[Sandbox]:
    """So many paused ones of bob's, each used later than the one before."""
    now = timezone.now()
    rows = [
        Sandbox(
            **{
                "team": house.team,
                "owner": house.bob,
                "name": f"box-{i:05}",
                "backend": "local",
                "request_key": f"{i}-{fields}"[:64],
                "state": State.PAUSED,
                "used_at": now + timedelta(seconds=i),
                **fields,
            }
        )
        for i in range(count)
    ]
    return Sandbox.objects.bulk_create(rows)


def get(person, query: str = ""):
    client = Client()
    client.force_login(person)
    return client.get(LIST + query)


def names(answer) -> list[str]:
    return [row.name for row, _, _ in answer.context["sandboxes"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"one", "two"}),
        ("?q=ON", {"one"}),
        ("?q=machine-2", {"two"}),
        ("?template=node", {"two"}),
        ("?label=stage=live", {"one"}),
        ("?label=stage=li", set()),
        ("?label=stage__contains=live", set()),
        ("?label=nonsense", {"one", "two"}),
        ("?owner=bob@example.test", {"one"}),
        ("?mine=1", {"two"}),
        ("?show=running", {"two"}),
        ("?show=ended", {"old"}),
        ("?sort=nonsense&show=nonsense&page=nonsense", {"one", "two"}),
        ("?page=99", {"one", "two"}),
        ("?q=%00", {"one", "two"}),
    ],
)
def test_the_address_says_what_is_listed(house, query: str, found: set[str]) -> None:
    made(house, 1, name="one", metadata={"stage": "live"}, sandbox_id="machine-1")
    made(house, 1, name="old", state=State.GONE)
    more = {"template": "node", "sandbox_id": "machine-2", "state": State.RUNNING}
    made(house, 1, name="two", owner=house.alice, **more)
    assert set(names(get(house.alice, query))) == found
    assert names(get(house.charlie, query)) == []


def test_it_is_sorted_by_its_columns(house) -> None:
    made(house, 3)
    assert names(get(house.victor)) == ["box-00002", "box-00001", "box-00000"]
    answer = get(house.victor, "?sort=name")
    assert names(answer) == ["box-00000", "box-00001", "box-00002"]
    assert answer.context["heads"]["name"] == "-name"
    assert answer.context["heads"]["used"] == "-used"
    assert names(get(house.victor, "?sort=-name"))[0] == "box-00002"


def test_pages_hold_all_without_gap(house, monkeypatch) -> None:
    monkeypatch.setattr(list_views, "PER_PAGE", 2)
    made(house, 5)
    seen = [name for n in "123" for name in names(get(house.bob, f"?page={n}"))]
    assert seen == [f"box-{i:05}" for i in range(4, -1, -1)]


def test_the_number_of_queries_does_not_grow(house) -> None:
    made(house, 3)
    counts = []
    for more in (0, 200):
        made(house, more, name="other")
        with CaptureQueriesContext(connection) as queries:
            assert get(house.bob).status_code == 200
        counts.append(len(queries))
    assert counts[1] <= counts[0]


def post(person, **data):
    client = Client()
    client.force_login(person)
    return client.post(reverse("sandboxes:bulk"), data)


def test_disposing_many_asks_first(house) -> None:
    rows = made(house, 3)
    codes = [row.code for row in rows[:2]]
    page = post(house.bob, action="dispose", code=codes)
    assert [row.name for row in page.context["sandboxes"]] == ["box-00000", "box-00001"]
    assert Sandbox.objects.filter(state=State.PAUSED).count() == 3


@pytest.mark.django_db(transaction=True)
def test_many_are_paused_and_disposed(house, sandbox) -> None:
    other = made(house, 1, name="ended", state=State.GONE)[0]
    codes = [sandbox.code, other.code]
    post(house.bob, action="pause", code=codes)
    sandbox.refresh_from_db()
    assert sandbox.state == State.PAUSED
    for _ in range(2):
        answer = post(house.bob, action="dispose", sure="1", code=codes)
        assert answer["Location"] == LIST
    sandbox.refresh_from_db()
    assert sandbox.state == State.GONE


def test_one_that_cannot_is_named_and_the_rest_is_done(house, backend) -> None:
    made(house, 1, name="making", state=State.CREATING)
    client = Client()
    client.force_login(house.bob)
    codes = list(Sandbox.objects.values_list("code", flat=True))
    data = {"action": "pause", "code": codes}
    page = client.post(reverse("sandboxes:bulk"), data, follow=True)
    assert "making: This sandbox is creating" in page.content.decode()


@pytest.mark.parametrize("who", ["victor", "charlie", "alice"])
def test_only_what_one_may_manage_is_touched(house, who: str) -> None:
    rows = made(house, 1)
    answer = post(getattr(house, who), action="dispose", code=[rows[0].code])
    assert answer.status_code == (200 if who == "alice" else 400)


@pytest.mark.parametrize("data", [{}, {"action": "pause"}, {"code": ["x"]}])
def test_a_form_that_asks_for_nothing_is_told(house, data) -> None:
    assert post(house.bob, **data).status_code == 400


def test_a_viewer_has_nothing_to_choose(house) -> None:
    made(house, 1)
    assert b'name="code"' not in get(house.victor).content
    assert b'name="code"' in get(house.bob).content
