"""Charts as numbers for an SVG: where lines go, what is written beside them.

A chart is WIDTH by HEIGHT units; the page stretches it. Where samples are missing
the line is broken, so that nothing is shown that was not measured.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT = 600, 100
# Longer than so many usual intervals without a sample is a gap.
GAP = 3.5
# More points than this cannot be told apart.
MAX_POINTS = 300
GRID = (0.25, 0.5, 0.75)

type Point = tuple[datetime, float]


@dataclass(frozen=True)
class Chart:
    """Lines as `points` attributes, areas as `d` attributes, and the scale's top."""

    lines: list[str]
    areas: list[str]
    grid: list[float]
    top: float
    latest: float | None
    highest: float | None


def chart(
    points: Sequence[Point], *, start: datetime, end: datetime, top: float = 0
) -> Chart:
    """Draw values over time; the scale reaches `top`, or further if they do."""
    span_s = max((end - start).total_seconds(), 1.0)
    inside = [point for point in points if start <= point[0] <= end]
    values = [value for _, value in inside]
    scale = max([top, *values]) or 1.0
    runs = []
    for run in _runs(_thinned(inside)):
        runs.append(
            [
                (
                    round((at - start).total_seconds() / span_s * WIDTH, 1),
                    round(HEIGHT - max(value, 0) / scale * HEIGHT, 1),
                )
                for at, value in run
            ]
        )
    return Chart(
        lines=[" ".join(f"{x},{y}" for x, y in run) for run in runs],
        areas=[_area(run) for run in runs],
        grid=[HEIGHT * part for part in GRID],
        top=scale,
        latest=values[-1] if values else None,
        highest=max(values) if values else None,
    )


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MAX_POINTS: of each stretch the highest, since peaks matter."""
    each = -(-len(points) // MAX_POINTS) or 1
    groups = [points[i : i + each] for i in range(0, len(points), each)]
    return [max(group, key=lambda point: point[1]) for group in groups]


def _runs(points: list[Point]) -> list[list[Point]]:
    """The points, parted where samples are missing."""
    if not points:
        return []
    steps = [(b[0] - a[0]).total_seconds() for a, b in itertools.pairwise(points)]
    usual = statistics.median(steps) if steps else 0
    runs = [[points[0]]]
    for step, point in zip(steps, points[1:], strict=True):
        if step > GAP * usual:
            runs.append([])
        runs[-1].append(point)
    return runs


def _area(run: list[tuple[float, float]]) -> str:
    line = "L".join(f"{x},{y}" for x, y in run)
    return f"M{run[0][0]},{HEIGHT}L{line}L{run[-1][0]},{HEIGHT}Z"
