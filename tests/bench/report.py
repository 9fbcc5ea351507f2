"""Figures of two servers over paired rounds, against their targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import machine
from .load import Measurement
from .scenario import POINTS, Point
from .server import SERVERS

Round = Mapping[str, Mapping[str, Measurement]]
"""Server → point → what was measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a figure's median over the rounds."""

    bound: float
    at_least: bool

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: its value per round, with both servers' medians beside it.

    `theirs` is None where the figure is about one server alone.
    """

    label: str
    values: tuple[float, ...]
    ours: float
    theirs: float | None
    unit: str
    target: Target | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.target.met(self.median) else "missed"

    def as_json(self, ours: str, theirs: str) -> dict[str, object]:
        return {
            "figure": self.label,
            "unit": self.unit,
            ours: self.ours,
            theirs: self.theirs,
            "median": self.median,
            "values": self.values,
            "target": str(self.target) if self.target else None,
            "met": self.target.met(self.median) if self.target else None,
        }


def lines(rounds: Sequence[Round]) -> list[Line]:
    """Every figure that both servers have in every round."""
    shared = set.intersection(*(set(side) for one in rounds for side in one.values()))
    points = [point for point in POINTS if point.name in shared]
    streams = [point for point in points if point.stream and point.budget is None]
    return [
        *(_rate(rounds, point) for point in points),
        *(line for point in streams if (line := _first_token(rounds, point)) is not None),
        *(_cpu(rounds, point) for point in points),
        *(_front_cpu(rounds, point) for point in points),
        *([_memory(rounds)] if points else []),
    ]


def table(lines: Sequence[Line], ours: str, theirs: str) -> str:
    """As Markdown, below the machine that the figures are of."""
    about = machine.describe()
    rounds = len(lines[0].values)
    head = ("figure", "unit", ours, theirs, "ratio, median", "range", "target", "")
    rows = [
        (
            line.label,
            line.unit,
            f"{line.ours:.4g}",
            "" if line.theirs is None else f"{line.theirs:.4g}",
            f"{line.median:.2f}",
            f"{min(line.values):.2f} – {max(line.values):.2f}",
            str(line.target or ""),
            line.verdict,
        )
        for line in lines
    ]
    return "\n".join(
        [
            f"{rounds} rounds on {about['cores']} cores of {about['cpu']}:",
            "",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    )


def ratio(
    label: str,
    unit: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    target: Target | None = None,
) -> Line:
    """Round by round; the figure is the median of the ratios."""
    ratios = tuple(a / b for a, b in zip(ours, theirs, strict=True))
    return Line(label, ratios, statistics.median(ours), statistics.median(theirs), unit, target)


def _rate(rounds: Sequence[Round], point: Point) -> Line:
    bound = {None: 1.0, 64: 0.95, 512: 1.10}[point.budget]
    return _of(
        rounds,
        point,
        "tokens/s",
        lambda measured: measured.tokens_per_second,
        Target(bound, at_least=True),
    )


def _first_token(rounds: Sequence[Round], point: Point) -> Line | None:
    """None where a window was too short for so many streams: none of them began within it."""
    if any(one[name][point.name].ttft is None for one in rounds for name in SERVERS):
        return None
    return _of(
        rounds,
        point,
        "ms to first token",
        lambda measured: 1000 * (measured.ttft or math.nan),
        Target(1.05, at_least=False),
    )


def _cpu(rounds: Sequence[Round], point: Point) -> Line:
    return _of(rounds, point, "CPU s / 1000 tokens", lambda measured: measured.cpu_per_1000)


def _front_cpu(rounds: Sequence[Round], point: Point) -> Line:
    return _of(
        rounds,
        point,
        "CPU s / 1000 tokens, HTTP process",
        lambda measured: measured.front_cpu_per_1000,
    )


def _of(
    rounds: Sequence[Round],
    point: Point,
    unit: str,
    figure: Callable[[Measurement], float],
    target: Target | None = None,
) -> Line:
    ponder, vllm = ([figure(one[name][point.name]) for one in rounds] for name in SERVERS)
    return ratio(point.name, unit, ponder, vllm, target)


def _memory(rounds: Sequence[Round]) -> Line:
    """Peak over the points of a round; the figure is the difference, not a ratio."""

    def peak(measurements: Iterable[Measurement]) -> float:
        return max(measured.pss_mib for measured in measurements)

    ponder = [peak(one["ponder"].values()) for one in rounds]
    vllm = [peak(one["vllm"].values()) for one in rounds]
    more = tuple(a - b for a, b in zip(ponder, vllm, strict=True))
    middle = statistics.median
    target = Target(50.0, at_least=False)
    return Line("memory, more than vLLM", more, middle(ponder), middle(vllm), "MiB PSS", target)
