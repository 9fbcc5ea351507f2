"""Turns samples into accuracies, lengths and pass rates, with the problem as the unit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from .evaluate import Condition, Sample
from .intervals import Estimate, accuracy, all_pass, any_pass, mean, ratio, share

Key = TypeVar("Key", bound=Hashable)

PASS_KS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Cell:
    """Estimates of a group of samples: shares (0 to 1) and thinking tokens with their intervals.

    `any_pass` and `all_pass` map k to the chance that at least one, or every one, of k answers to a
    problem is correct. `tokens` are those of the `measured` problems: the others' requests all
    failed. None where the server does not report them.
    """

    problems: int
    samples: int
    accuracy: Estimate
    tokens: Estimate | None
    measured: int
    natural: float  # share of thoughts that ended by themselves
    any_pass: dict[int, Estimate]
    all_pass: dict[int, Estimate]


@dataclass(frozen=True, slots=True)
class Tally:
    """All samples of one problem under one condition. `tokens` is the mean of the `answered`."""

    samples: int
    answered: int
    correct: int
    tokens: float | None
    natural: int


def conditions(samples: Iterable[Sample]) -> list[Condition]:
    """The conditions of the samples, in order of first appearance."""
    return list(dict.fromkeys(sample.condition for sample in samples))


def summarise(samples: Iterable[Sample], key: Callable[[Sample], Key]) -> dict[Key, Cell]:
    """A cell per value of `key`, in order of first appearance."""
    groups: dict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[key(sample)].append(sample)
    return {value: _cell(group) for value, group in groups.items()}


def tallies(samples: Iterable[Sample]) -> dict[Condition, dict[str, Tally]]:
    """By condition and problem id; the problems are in the same order under every condition."""
    groups: dict[Condition, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        groups[sample.condition][sample.problem.id].append(sample)
    return {
        condition: {id_: _tally(group) for id_, group in by_problem.items()}
        for condition, by_problem in groups.items()
    }


def anytime(samples: Sequence[Sample]) -> Estimate | None:
    """Mean accuracy over the positive budgets of the grid; None where nothing was truncated.

    AnytimeReasoner's measure (arXiv 2505.13438) with equal weights.
    """
    counted = [s for s in samples if s.condition.mode == "truncated" and s.condition.cut > 0]
    if not counted:
        return None
    by_budget = [
        [tally.correct / tally.samples for tally in by_problem.values()]
        for by_problem in tallies(counted).values()
    ]
    # All budgets of a sample share one thought, so a sample counts as one trial.
    trials = len(counted) // len(by_budget)
    return share([fmean(shares) for shares in zip(*by_budget, strict=True)], trials)


def hint_ratio(samples: Sequence[Sample]) -> Estimate | None:
    """Mean length under the largest hint over that under the smallest, on the same problems.

    1 where hints change nothing. None with fewer than two hints, and without lengths. A problem
    that was answered under one of them alone is left out.
    """
    by_hint = tallies(s for s in samples if s.condition.mode == "hinted")
    if len(by_hint) < 2:
        return None
    ordered = sorted(by_hint, key=lambda condition: condition.budget or 0)
    largest, smallest = by_hint[ordered[-1]], by_hint[ordered[0]]
    both = [id_ for id_ in largest if largest[id_].answered and smallest[id_].answered]
    lengths = [_lengths([of[id_] for id_ in both]) for of in (largest, smallest)]
    if any(len(of) < len(both) for of in lengths) or not any(lengths[1]):
        return None
    return ratio(*lengths)


def _cell(samples: Sequence[Sample]) -> Cell:
    by_problem: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_problem[sample.problem.id].append(sample)
    groups = list(by_problem.values())
    found = [_tally(group) for group in groups]
    ks = [k for k in PASS_KS if k <= min(tally.samples for tally in found)]

    def passed(estimator: Callable[[int, int, int], float], k: int) -> Estimate:
        return share([estimator(t.samples, t.correct, k) for t in found], len(samples))

    measured, lengths = [t for t in found if t.answered], _lengths(found)
    return Cell(
        problems=len(groups),
        samples=len(samples),
        accuracy=accuracy([[s.correct for s in group] for group in groups]),
        tokens=mean([[of] for of in lengths]) if 0 < len(lengths) == len(measured) else None,
        measured=len(measured),
        natural=sum(tally.natural for tally in found) / len(samples),
        any_pass={k: passed(any_pass, k) for k in ks},
        all_pass={k: passed(all_pass, k) for k in ks},
    )


def _lengths(found: Iterable[Tally]) -> list[float]:
    return [tally.tokens for tally in found if tally.tokens is not None]


def _tally(samples: Sequence[Sample]) -> Tally:
    """The mean of tokens omits failed answers, and is None where any other has no count."""
    told = [s.thinking_tokens for s in samples if s.end_cause != "error"]
    tokens = [float(number) for number in told if number is not None]
    return Tally(
        samples=len(samples),
        answered=len(told),
        correct=sum(s.correct for s in samples),
        tokens=fmean(tokens) if told and len(tokens) == len(told) else None,
        natural=sum(s.end_cause == "natural" for s in samples),
    )
