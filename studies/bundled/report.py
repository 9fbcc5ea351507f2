"""Chooses a candidate, and writes docs/frontier.md from the measured answers alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any, Self

from ponder.evaluation.intervals import Estimate, mean, paired, ratio, share
from ponder.evaluation.plots import Curve, draw
from ponder.thought.budget import UNLIMITED

from .answers import BUDGETS, PROBLEMS, Answers, Measured, as_json, from_json
from .candidates import CANDIDATES, COLD_START

EPSILON = 0.02
"""How far the chosen point may be below the cold start's accuracy: the alert QualityGap's."""
TARGET = 0.4
"""The largest share of the cold start's tokens that is aimed at."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate and a budget of tokens."""

    name: str
    budget: int


@dataclass(frozen=True, slots=True)
class Record:
    """What the page shows: the machine, the choice, and answers to test problems by checkpoint.

    `weights` is the SHA-256 of the chosen model.safetensors.
    """

    machine: Mapping[str, Any]
    choice: Choice
    weights: str
    test: Mapping[str, Measured]

    def write(self, file: Path) -> None:
        test = {name: as_json(measured) for name, measured in self.test.items()}
        stored = {
            "machine": self.machine,
            "choice": asdict(self.choice),
            "weights": self.weights,
            "test": test,
        }
        file.write_text(json.dumps(stored) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Self:
        stored = json.loads(file.read_text(encoding="utf-8"))
        test = {name: from_json(measured) for name, measured in stored["test"].items()}
        return cls(stored["machine"], Choice(**stored["choice"]), stored["weights"], test)


@dataclass(frozen=True, slots=True)
class Saving:
    """A point against the cold start's free thoughts, on the same problems, with 95 % intervals."""

    tokens: Estimate
    accuracy: Estimate


def chosen(validation: Mapping[str, Measured]) -> Choice:
    """The candidate's point with the fewest tokens within `EPSILON` of the cold start's accuracy
    without a budget, else the most accurate one.
    """
    wanted = fmean(free(validation[COLD_START]).right) - EPSILON
    points = [
        (Choice(name, budget), fmean(answers.right), fmean(answers.tokens))
        for name in CANDIDATES
        for budget, answers in validation[name]["served"].items()
    ]
    within = [point for point in points if point[1] >= wanted]
    if within:
        return min(within, key=lambda point: point[2])[0]
    return max(points, key=lambda point: point[1])[0]


def saving(record: Record) -> Saving:
    """Of the chosen point: its share of the cold start's tokens, and its gain in accuracy."""
    at = record.test[record.choice.name]["served"][record.choice.budget]
    whole = free(record.test[COLD_START])
    gains = [a - b for a, b in zip(at.right, whole.right, strict=True)]
    return Saving(ratio(at.tokens, whole.tokens), paired([gains]))


def free(measured: Measured) -> Answers:
    """Answers without a budget."""
    return measured["truncated"][UNLIMITED]


def page(record: Record) -> str:
    return "\n".join(_lines(record)) + "\n"


def plot(test: Mapping[str, Measured], stem: Path) -> None:
    """Accuracy against all tokens as `stem`.png and .svg, a curve for each checkpoint."""
    curves = [_curve(name, by_budget) for name, by_budget in _columns(test).items()]
    draw(curves, stem, x_label="mean tokens of a reply", y_label="accuracy")


def _columns(test: Mapping[str, Measured]) -> dict[str, Mapping[int, Answers]]:
    """Answers by budget, by what is compared."""
    plain = {f"{COLD_START}, cap alone": test[COLD_START]["truncated"]}
    return plain | {name: measured["served"] for name, measured in test.items()}


def _curve(label: str, by_budget: Mapping[int, Answers]) -> Curve:
    at = sorted(by_budget.values(), key=lambda answers: fmean(answers.tokens))
    return Curve(
        label, [fmean(answers.tokens) for answers in at], [_accuracy(answers) for answers in at]
    )


def _accuracy(answers: Answers) -> Estimate:
    return share(answers.right, len(answers.right))


def _lines(record: Record) -> Iterator[str]:
    choice, saved, columns = record.choice, saving(record), _columns(record.test)
    at, whole = columns[choice.name][choice.budget], free(record.test[COLD_START])
    yield "# What training saved the bundled checkpoint"
    yield ""
    yield _prose(
        f"`python -m studies.bundled` wrote this page: it trains `{COLD_START}` and from it "
        "candidates by HBPO. `hbpo`, `hbpo-1e-4` and `hbpo-aspo` give every rollout a hint, as the "
        "paper does, `hbpo-unhinted` gives some none. `hbpo-aspo` adds ASPO's bounded advantage "
        "for shorter thoughts. `hbpo` and `hbpo-1e-4` take 100 steps, the other two 160. On "
        "validation problems the study chooses, of all candidates and budgets, the point with the "
        "fewest tokens whose accuracy is at most two points below the cold start's without a "
        "budget: a greater loss raises the alert QualityGap. "
        f"Below are test problems alone: {PROBLEMS} of the tiny families, each answered once, as "
        "by a server, at temperature 1. **Tokens count the whole reply**: hint, thought, closing "
        "text, answer and retry."
    )
    yield ""
    yield _prose(
        f"**Chosen: `{choice.name}`**, {_under(choice.budget)}. It takes "
        f"{_percent(saved.tokens)} of the cold start's tokens without a budget "
        f"({fmean(at.tokens):.1f} instead of {fmean(whole.tokens):.1f}), where at most "
        f"{TARGET:.0%} was aimed at, and its accuracy differs by {_points(saved.accuracy)} points "
        f"from {fmean(whole.right):.1%}. Intervals are of 95 %, paired over problems."
    )
    yield ""
    yield "![Accuracy against the tokens of a reply](frontier/tokens.svg)"
    yield ""
    yield _prose("Accuracy and mean tokens by budget; *cap alone* leaves out the hint:")
    yield ""
    yield f"| budget | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for budget in BUDGETS:
        cells = (_cell(by_budget[budget]) for by_budget in columns.values())
        yield f"| {_budget(budget)} | {' | '.join(cells)} |"


def _cell(answers: Answers) -> str:
    found, tokens = _accuracy(answers), mean([[each] for each in answers.tokens])
    return (
        f"{found.mean:.1%} ({100 * found.low:.1f}–{100 * found.high:.1f}), "
        f"{tokens.mean:.1f} ± {tokens.high - tokens.mean:.1f}"
    )


def _budget(budget: int) -> str:
    return "none" if budget == UNLIMITED else str(budget)


def _under(budget: int) -> str:
    return "without a budget" if budget == UNLIMITED else f"under a budget of {budget}"


def _percent(of: Estimate) -> str:
    return f"{of.mean:.1%} ({100 * of.low:.1f}–{100 * of.high:.1f} %)"


def _points(of: Estimate) -> str:
    return f"{100 * of.mean:+.1f} ({100 * of.low:+.1f} to {100 * of.high:+.1f})"


def _prose(text: str) -> str:
    return fill(text, 112, break_long_words=False, break_on_hyphens=False)
