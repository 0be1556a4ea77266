"""Words that every page spells the same way, in the browser as well."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from kode_web.teams.templatetags import house

BROWSER = Path(__file__).parents[1] / "js" / "app.test.js"
SPANS = re.findall(r"\[(-?[\d.]+), \"([^\"]+)\"\]", BROWSER.read_text())


@pytest.mark.parametrize(("seconds", "text"), SPANS)
def test_a_span_is_spelled_as_in_the_browser(seconds: str, text: str) -> None:
    assert house.duration(float(seconds)) == text


def test_no_clock_is_no_words() -> None:
    assert house.duration(None) == ""
    assert house.age(None) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "now"), (42, "42 s"), (7300, "2 h"), (200_000, "2 d")]
)
def test_an_age_has_one_unit(seconds: int, text: str) -> None:
    assert house.age(timezone.now() - timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (14_200_000, "14 MB")],
)
def test_a_size_has_two_figures_and_a_unit(count: int, text: str) -> None:
    assert house.size(count) == text


def test_an_icon_is_nothing_to_a_screen_reader() -> None:
    html = house.icon('x" onload="')
    assert 'aria-hidden="true"' in html
    assert 'onload="' not in html
