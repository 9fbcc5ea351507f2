"""Figures of evaluations and trainings, each as PNG and SVG; equal data give equal files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ponder.thought.budget import UNLIMITED

from .aggregate import summarise
from .evaluate import Sample
from .intervals import Estimate

# Okabe and Ito's palette, which colour-blind readers can tell apart (Wong, Nature Methods 8, 2011).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Look = dict[str, Any]

_STYLE: Any = {  # typed Any: matplotlib spells out every key it knows
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.dpi": 150,
    "font.size": 9,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "svg.hashsalt": "ponder",
}
_LINE: Any = {"linewidth": 1.2, "markersize": 4}
_KINDS: dict[str, Look] = {
    "step": {"color": _COLOURS[0], "linewidth": 1.0},
    "validation": {"color": _COLOURS[1], "linewidth": 0.8, "marker": "o", "markersize": 4},
}
_TRAINING = (
    "reward",
    "accuracy",
    "thinking_tokens",
    "truncation_rate",
    "zero_variance_share",
    "entropy",
    "clipped_high",
    "clipped_low",
    "grad_norm",
)
_SIZE = (6.0, 3.4)  # inches
_PANEL = (3.2, 2.2)
_CLOSE = 0.05  # of the width of the axes


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: `y` with its intervals over `x`; `names` are written at the points."""

    label: str
    x: Sequence[float]
    y: Sequence[Estimate]
    names: Sequence[str] = ()


def plot_evaluation(samples: Sequence[Sample], directory: Path) -> list[Path]:
    """Draw every figure for which `samples` suffice into `directory`; returns the files."""
    files = []
    if curves := accuracy_by_tokens(samples):
        stem = directory / "accuracy-tokens"
        files += draw(curves, stem, x_label="mean thinking tokens", y_label="accuracy")
    if curves := anytime_curve(samples):
        stem = directory / "anytime"
        x_label = "thinking budget (tokens)"
        files += draw(curves, stem, x_label=x_label, y_label="accuracy", band=True)
    if curves := length_by_difficulty(samples):
        stem = directory / "length-difficulty"
        files += draw(
            curves, stem, x_label="difficulty", y_label="mean thinking tokens", dodge=0.08
        )
    return files


def accuracy_by_tokens(samples: Sequence[Sample]) -> list[Curve]:
    """A curve per mode, a point per hint or budget."""
    cells = summarise(samples, lambda s: s.condition)
    points = {
        condition: (cell.tokens.mean, cell.accuracy)
        for condition, cell in cells.items()
        if cell.tokens is not None
    }
    curves = []
    for mode in dict.fromkeys(condition.mode for condition in points):
        of_mode = [condition for condition in points if condition.mode == mode]
        x, y = zip(*(points[condition] for condition in of_mode), strict=True)
        names = [condition.name.split()[-1] for condition in of_mode]
        curves.append(Curve(mode, x, y, names if len(names) > 1 else ()))
    return curves


def anytime_curve(samples: Sequence[Sample], label: str = "truncated") -> list[Curve]:
    """Accuracy over the budgets of truncated thoughts; no curve with fewer than two budgets."""
    cells = summarise(
        (s for s in samples if s.condition.mode == "truncated" and s.condition.cut >= 0),
        lambda s: s.condition.cut,
    )
    if len(cells) < 2:
        return []
    return [Curve(label, list(cells), [cell.accuracy for cell in cells.values()])]


def length_by_difficulty(samples: Sequence[Sample]) -> list[Curve]:
    """A curve per condition that does not cut thoughts."""
    cells = summarise(samples, lambda s: (s.condition, s.problem.difficulty))
    levels = sorted({level for _, level in cells})
    curves: dict[str, Curve] = {}
    for condition in dict.fromkeys(condition for condition, _ in cells):
        by_level = {lv: cells[condition, lv] for lv in levels if (condition, lv) in cells}
        answered = [level for level, cell in by_level.items() if cell.measured]
        found = [by_level[level].tokens for level in answered]
        lengths = [tokens for tokens in found if tokens is not None]
        if condition.cut == UNLIMITED and 0 < len(lengths) == len(answered):
            label = "natural" if condition.hint in (None, "served") else condition.name
            curves.setdefault(label, Curve(label, answered, lengths))
    return list(curves.values())


def plot_training(metrics: Path, stem: Path) -> list[Path]:
    """The curves of a run's `metrics.jsonl`, a panel per metric, as `stem`.png and .svg.

    Lines are the steps' rollouts, points the validations. Raises `ValueError` where the file holds
    none of the metrics, or is another program's.
    """
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1]
    entries = [json.loads(line) for line in lines]
    if not all(isinstance(entry, dict) and {"kind", "step"} <= entry.keys() for entry in entries):
        raise ValueError(f"{metrics} holds lines without kind and step: no run of ponder wrote it")
    names = [name for name in _TRAINING if any(name in entry for entry in entries)]
    if not names:
        raise ValueError(f"{metrics} holds none of {', '.join(_TRAINING)}")
    across = min(3, math.ceil(math.sqrt(len(names))))
    down = math.ceil(len(names) / across)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_PANEL[0] * across, _PANEL[1] * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for panel, name in zip(panels, names, strict=False):
            panel.set(title=name.replace("_", " "), xlabel="step")
            for kind, look in _KINDS.items():
                points = [(e["step"], e[name]) for e in entries if e["kind"] == kind and name in e]
                if points:
                    panel.plot(*zip(*points, strict=True), label=kind, **look)
            if len(panel.lines) > 1:
                panel.legend(fontsize="x-small")
        for panel in panels[len(names) :]:
            panel.remove()
        return _save(figure, stem)


def draw(
    curves: Sequence[Curve],
    stem: Path,
    *,
    x_label: str,
    y_label: str,
    band: bool = False,
    dodge: float = 0.0,
    zoom: bool = False,
    first: int = 0,
) -> list[Path]:
    """Curves with error bars, or bands, as `stem`.png and `stem`.svg; accuracies in percent.

    Curves that share their x are drawn `dodge` apart, so that all bars are visible. The y axis
    begins at 0, and an accuracy's ends at 100 %, unless `zoom`. `first` is the index of the first
    colour, so that a figure with fewer curves gives them the same colours as others do.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=x_label, ylabel=y_label)
        for i, curve in enumerate(curves, first):
            shift = (i - first - (len(curves) - 1) / 2) * dodge
            x = [at + shift for at in curve.x]
            look: Look = {
                "color": _COLOURS[i % len(_COLOURS)],
                "zorder": 3 + len(curves) + first - i,
            }
            _draw_interval(axes, x, curve.y, band, look)
            marker = _MARKERS[i % len(_MARKERS)]
            y = [estimate.mean for estimate in curve.y]
            axes.plot(x, y, marker=marker, label=curve.label, **_LINE, **look)
        if not zoom:
            # Leave room for markers at 0 and 100 %.
            axes.set_ylim(*((-0.04, 1.04) if "accuracy" in y_label else (0, None)))
        if "accuracy" in y_label:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        for i, curve in enumerate(curves, first):
            _name_points(axes, curve, _COLOURS[i % len(_COLOURS)], above=i % 2 == 0)
        if len(curves) > 1:
            figure.legend(loc="outside right upper")
        return _save(figure, stem)


def _draw_interval(
    axes: Axes, x: Sequence[float], y: Sequence[Estimate], band: bool, look: Look
) -> None:
    if band:
        axes.fill_between(x, [e.low for e in y], [e.high for e in y], alpha=0.15, lw=0, **look)
        return
    below, above = [e.mean - e.low for e in y], [e.high - e.mean for e in y]
    look = look | {"fmt": "none", "elinewidth": 0.8, "capsize": 2}
    axes.errorbar(x, [e.mean for e in y], yerr=(below, above), **look)


def _name_points(axes: Axes, curve: Curve, colour: str, *, above: bool) -> None:
    """Write the points' names; points too close to each other share one."""
    left, right = axes.get_xlim()
    named: list[tuple[list[str], tuple[float, float]]] = []
    for name, x, y in zip(curve.names, curve.x, curve.y, strict=False):
        if named and x - named[-1][1][0] < _CLOSE * (right - left):
            named[-1][0].append(name)
        else:
            named.append(([name], (x, y.mean)))
    for names, at in named:
        offset = (5, 5) if above else (5, -9)
        text = ", ".join(names)
        axes.annotate(text, at, offset, textcoords="offset points", color=colour, size="x-small")


def _save(figure: Figure, stem: Path) -> list[Path]:
    """Save without dates and versions, so that a file changes only with its data."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]
