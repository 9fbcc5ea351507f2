"""The difference between two arms that a plan can detect, from the variances of an earlier study.

python -m studies.reproduction power [--results DIRECTORY]

A difference of two arms' mean accuracy on the same problems varies with the seeds, with the
problems, and by a rest that includes the noise of sampling. `spread` estimates the three variances
from recorded runs (two-way analysis of variance without replication). The standard error of a plan
with S seeds and P problems is then sqrt(seed / S + problem / P + rest / (S P)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ponder.evaluation.resampling import Floats

from .records import Record

_DETECTED = 1.96 + 0.84
"""Standard errors of a difference that a two-sided test at 5 % finds in four of five studies."""
PAIRS = (("hbpo", "grpo"), ("hbpo", "length-penalty"), ("brpo", "grpo"))


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of a difference in accuracy: by seed, by problem, and the rest."""

    seed: float
    problem: float
    rest: float

    def detected(self, seeds: int, problems: int) -> float:
        """The difference, as a share, that a plan finds in four of five studies.

        >>> round(Spread(seed=0.0, problem=0.04, rest=0.0).detected(seeds=5, problems=400), 3)
        0.028
        """
        variance = self.seed / seeds + self.problem / problems + self.rest / (seeds * problems)
        return _DETECTED * math.sqrt(variance)


def spread(difference_SP: Floats) -> Spread:
    """Variances of a difference (S seeds, P problems), S, P ≥ 2; a negative estimate becomes 0."""
    seeds, problems = difference_SP.shape
    by_seed_S, by_problem_P = difference_SP.mean(1), difference_SP.mean(0)
    left_SP = difference_SP - by_seed_S[:, None] - by_problem_P + difference_SP.mean()
    rest = float((left_SP**2).sum() / ((seeds - 1) * (problems - 1)))
    return Spread(
        max(float(by_seed_S.var(ddof=1)) - rest / problems, 0.0),
        max(float(by_problem_P.var(ddof=1)) - rest / seeds, 0.0),
        rest,
    )


def lines(records: Sequence[Record], seeds: Sequence[int], problems: int) -> Iterator[str]:
    """A line for each pair of arms that has two seeds in common."""
    for one, other in PAIRS:
        ours, theirs = _accuracy(records, one), _accuracy(records, other)
        common = sorted(ours.keys() & theirs.keys())
        if len(common) < 2:
            continue
        found = spread(np.array([ours[seed] - theirs[seed] for seed in common]))
        told = ", ".join(f"{100 * found.detected(n, problems):.1f} with {n}" for n in seeds)
        yield f"{one} less {other}: points of accuracy, {problems} problems: {told} seeds"


def _accuracy(records: Sequence[Record], arm: str) -> dict[int, Floats]:
    """By seed: the share of right natural answers to each problem."""
    return {
        record["seed"]: np.array(natural["correct"]) / natural["samples"]
        for record in records
        if record["kind"] == "main" and record["arm"] == arm and "measured" in record
        for natural in (record["measured"]["natural"],)
    }
