"""Ratios Ponder/vLLM over paired rounds, against the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .load import Measurement
from .scenario import POINTS, Point

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
    """One figure: its value per round, with both servers' medians beside it."""

    label: str
    values: tuple[float, ...]
    ponder: float
    vllm: float
    unit: str
    target: Target | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.target.met(self.median) else "MISSED"


def lines(rounds: Sequence[Round]) -> list[Line]:
    """Every figure that both servers have in every round."""
    shared = set.intersection(*(set(side) for one in rounds for side in one.values()))
    points = [point for point in POINTS if point.name in shared]
    streams = [point for point in points if point.stream and point.budget is None]
    return [
        *(_rate(rounds, point) for point in points),
        *(_first_token(rounds, point) for point in streams),
        *(_cpu(rounds, point) for point in points),
        *(_front_cpu(rounds, point) for point in points),
        *([_memory(rounds)] if points else []),
    ]


def table(rounds: Sequence[Round]) -> str:
    header = ("figure", "Ponder", "vLLM", "unit", "median", "min – max", "target", "")
    rows = [
        (
            line.label,
            f"{line.ponder:.4g}",
            f"{line.vllm:.4g}",
            line.unit,
            f"{line.median:.3f}",
            f"{min(line.values):.3f} – {max(line.values):.3f}",
            str(line.target or ""),
            line.verdict,
        )
        for line in lines(rounds)
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    )


def _rate(rounds: Sequence[Round], point: Point) -> Line:
    bound = {None: 1.0, 64: 0.95, 512: 1.10}[point.budget]
    return _ratio(
        rounds,
        point,
        "tokens/s",
        lambda measured: measured.tokens_per_second,
        Target(bound, at_least=True),
    )


def _first_token(rounds: Sequence[Round], point: Point) -> Line:
    def milliseconds(measured: Measurement) -> float:
        assert measured.ttft is not None
        return 1000 * measured.ttft

    return _ratio(rounds, point, "ms to first token", milliseconds, Target(1.05, at_least=False))


def _cpu(rounds: Sequence[Round], point: Point) -> Line:
    return _ratio(rounds, point, "CPU s / 1000 tokens", lambda measured: measured.cpu_per_1000)


def _front_cpu(rounds: Sequence[Round], point: Point) -> Line:
    return _ratio(
        rounds,
        point,
        "CPU s / 1000 tokens, HTTP process",
        lambda measured: measured.front_cpu_per_1000,
    )


def _ratio(
    rounds: Sequence[Round],
    point: Point,
    unit: str,
    figure: Callable[[Measurement], float],
    target: Target | None = None,
) -> Line:
    ponder = [figure(one["ponder"][point.name]) for one in rounds]
    vllm = [figure(one["vllm"][point.name]) for one in rounds]
    ratios = tuple(a / b for a, b in zip(ponder, vllm, strict=True))
    middle = statistics.median
    return Line(point.name, ratios, middle(ponder), middle(vllm), unit, target)


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
