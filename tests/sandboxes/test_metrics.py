"""What a sandbox uses, measured by its backend and drawn on the server."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse

from sandboxes import gateway
from sandboxes.charts import HEIGHT, MAX_POINTS, WIDTH, chart

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(seconds=600)
WAIT_S = 60


def points(*values: float, every_s: float = 5.0) -> list[tuple[datetime, float]]:
    return [
        (START + timedelta(seconds=i * every_s), value)
        for i, value in enumerate(values)
    ]


def test_nothing_measured_draws_nothing() -> None:
    drawn = chart([], start=START, end=END, top=100)
    assert (drawn.lines, drawn.latest, drawn.top) == ([], None, 100)


def test_values_go_from_the_bottom_up_and_from_left_to_right() -> None:
    drawn = chart(points(0, 50, 100, every_s=300), start=START, end=END, top=100)
    assert drawn.lines == [f"0.0,{HEIGHT}.0 {WIDTH / 2},50.0 {WIDTH}.0,0.0"]


def test_one_sample_is_a_point_and_a_constant_is_level() -> None:
    assert chart(points(7), start=START, end=END).latest == 7
    drawn = chart(points(3, 3, 3), start=START, end=END)
    assert {pair.split(",")[1] for pair in drawn.lines[0].split()} == {"0.0"}


def test_a_value_above_the_scale_moves_the_scale() -> None:
    drawn = chart(points(50, 400), start=START, end=END, top=100)
    assert (drawn.top, drawn.highest) == (400, 400)


def test_a_gap_breaks_the_line() -> None:
    late = [(START + timedelta(seconds=300 + i * 5), 1.0) for i in range(3)]
    drawn = chart([*points(1, 1, 1), *late], start=START, end=END)
    assert len(drawn.lines) == len(drawn.areas) == 2


def test_many_samples_keep_their_peak() -> None:
    values = [1.0] * 5000
    values[2345] = 99.0
    drawn = chart(points(*values, every_s=0.1), start=START, end=END, top=100)
    line = drawn.lines[0].split()
    assert len(line) <= MAX_POINTS
    assert any(pair.endswith(",1.0") for pair in line)


def test_what_is_outside_the_range_is_left_out() -> None:
    drawn = chart(points(5, 6), start=START + timedelta(seconds=3), end=END)
    assert drawn.latest == drawn.highest == 6


@pytest.mark.django_db(transaction=True)
def test_the_page_shows_what_was_measured(house, sandbox) -> None:
    deadline = time.monotonic() + WAIT_S
    while not gateway.metrics(sandbox):
        assert time.monotonic() < deadline, "nothing is measured"
        time.sleep(0.2)
    client = Client()
    client.force_login(house.victor)
    at = reverse("sandboxes:metrics", args=[sandbox.code])
    for chosen in ("15m", "1h", "6h", "all", "nonsense"):
        page = client.get(f"{at}?range={chosen}")
        assert [title for title, _, _ in page.context["charts"]] == [
            "Processor",
            "Memory",
            "Disk",
        ]
        assert b"<polyline" in page.content
    part = client.get(at, headers={"hx-request": "true"}).content
    assert part.lstrip().startswith(b"<section")


@pytest.mark.django_db
def test_one_that_ended_says_so_and_a_stranger_finds_nothing(house) -> None:
    row = house.team.sandboxes.create(
        name="old", backend="local", request_key="old", state="gone", sandbox_id="x"
    )
    at = reverse("sandboxes:metrics", args=[row.code])
    client = Client()
    client.force_login(house.victor)
    assert b"It has ended" in client.get(at).content
    client.force_login(house.charlie)
    assert client.get(at).status_code == 404


@pytest.mark.django_db
def test_a_backend_that_does_not_answer_is_said(house, plane) -> None:
    plane.answer = 500
    row = house.team.sandboxes.create(
        name="x", backend="local", request_key="x", state="running", sandbox_id="x"
    )
    client = Client()
    client.force_login(house.victor)
    page = client.get(reverse("sandboxes:metrics", args=[row.code]))
    assert page.status_code == 200
    assert b"Nothing can be shown now" in page.content
