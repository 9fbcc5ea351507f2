"""Draws panels of the dashboard as HTML: a number in a box, lines as SVG. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM = 560, 200, 105, 24
COLOURS = ("#3d71d9", "#e0752d", "#37872d", "#c4162a", "#8f3bb8", "#b88700", "#128c9b", "#777777")


@dataclass(frozen=True)
class Series:
    """The points of one line: (seconds, value) in the order of time."""

    name: str
    points: Sequence[tuple[float, float]]


def shown(value: float, unit: str) -> str:
    """A value as Grafana writes it in one of the units that the dashboard uses."""
    if not math.isfinite(value):
        return "–"
    match unit.partition(":"):
        case ("percentunit", _, _):
            return f"{value:.1%}"
        case ("s", _, _):
            return f"{value:.3g} s" if value >= 1 or value == 0 else f"{value * 1000:.3g} ms"
        case ("reqps", _, _):
            return f"{value:.3g} req/s"
        case ("suffix", _, suffix):
            return f"{value:.3g}{suffix}"
    return f"{value:.4g}"


def number(title: str, text: str, colour: str) -> str:
    return (
        f'<div class="number" style="border-color:{colour}">'
        f"<h3>{escape(title)}</h3><p>{escape(text)}</p></div>\n"
    )


def graph(
    title: str,
    description: str,
    series: Sequence[Series],
    unit: str,
    *,
    start: float,
    end: float,
) -> str:
    """Draw lines from `start` to `end`, with a legend that has each line's last value."""
    values = [v for line in series for _, v in line.points if math.isfinite(v)]
    head = f"<figure><h3>{escape(title)}</h3><p>{escape(description)}</p>"
    if not values:
        return f"{head}<p><em>no data yet</em></p></figure>\n"
    low, high = min(0.0, *values), max(0.0, *values)
    high = high if high > low else low + 1

    def place(t: float, value: float) -> str:
        x = LEFT + (t - start) / (end - start) * (WIDTH - LEFT)
        y = (high - value) / (high - low) * (HEIGHT - BOTTOM - 10) + 10
        return f"{x:.1f},{y:.1f}"

    marks = []
    for value in sorted({low, 0.0, (low + high) / 2, high}):
        y = place(start, value).partition(",")[2]
        marks.append(
            f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>'
            f'<text x="{LEFT - 6}" y="{y}">{escape(shown(value, unit))}</text>'
        )
    marks.append(f'<text x="{WIDTH}" y="{HEIGHT - 10}">{end - start:.0f} s</text>')
    lines, legend = [], []
    for number, line in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        points = [place(t, v) for t, v in line.points if math.isfinite(v)]
        lines.append(f'<polyline stroke="{colour}" points="{" ".join(points)}"/>')
        last = shown(line.points[-1][1], unit)
        legend.append(f'<li><i style="background:{colour}"></i>{escape(line.name)} {last}</li>')
    drawing = f'<g class="grid">{"".join(marks)}</g>{"".join(lines)}'
    return (
        f'{head}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{drawing}</svg>'
        f"<ul>{''.join(legend)}</ul></figure>\n"
    )
