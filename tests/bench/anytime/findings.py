"""What answers say: which setting to take, and whether it beats a plain cap.

Settings are chosen on one half of the problems and compared on the other. Problems are resampled,
their seeds are not: each has drawn its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from ponder.evaluation.curves import EPSILON
from ponder.evaluation.intervals import Estimate, mean, paired, share
from ponder.evaluation.resampling import paired_bootstrap

from .arms import Arm
from .rows import Answers, Floats

MARGIN = EPSILON
"""How much less often a rule may be right and still not be worse: a point, said beforehand."""
Verdict = Literal["beats", "not shown", "does not beat"]
_REPLICATES = 4000


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over all answers, and the share of requests that got none."""

    accuracy: Estimate
    tokens: Estimate
    thinking: float
    answer: float
    probe: float
    unanswered: float


def figures(answers: Answers) -> Figures:
    correct_PS = answers.correct_PS
    return Figures(
        share(correct_PS.mean(axis=1).tolist(), correct_PS.size),
        mean(answers.tokens_PS.tolist()),
        float(answers.thinking_PS.mean()),
        float(answers.answer_PS.mean()),
        float(answers.probe_PS.mean()),
        float((answers.causes_PS == "error").mean()),
    )


@dataclass(frozen=True, slots=True)
class Compared:
    """A rule beside another on the same problems: `difference` of the accuracies, from -1 to 1,
    and the `change` of all tokens and of the `answer`'s, as shares.
    """

    difference: Estimate
    change: Estimate
    answer: Estimate

    @property
    def verdict(self) -> Verdict:
        """It beats the other where, at 95 %, it is no more than a point worse and spends less.

        It does not where, at 95 %, it spends no less, or is more than a point worse.
        """
        if self.difference.low >= -MARGIN and self.change.high < 0:
            return "beats"
        if self.change.low >= 0 or self.difference.high < -MARGIN:
            return "does not beat"
        return "not shown"


def compare(one: Answers, other: Answers) -> Compared:
    """Paired by problem."""

    def by_problem(values_PS: Floats) -> list[Floats]:
        return [values_PS.mean(axis=1)]

    def change(mine_PS: Floats, theirs_PS: Floats) -> Estimate:
        mine, theirs = by_problem(mine_PS), by_problem(theirs_PS)
        return paired_bootstrap(mine, theirs, n=_REPLICATES, compare="change")

    return Compared(
        _difference(one.correct_PS.mean(axis=1), other.correct_PS.mean(axis=1)),
        change(one.tokens_PS, other.tokens_PS),
        change(one.answer_PS, other.answer_PS),
    )


def _difference(mine_P: Floats, theirs_P: Floats) -> Estimate:
    """Resampled, and no narrower than Bonett and Price's interval: few problems that all agree,
    which resampling takes for certain, prove little.
    """
    resampled = paired_bootstrap([mine_P], [theirs_P], n=_REPLICATES)
    cautious = paired([(mine_P - theirs_P).tolist()])
    return Estimate(
        resampled.mean, min(resampled.low, cautious.low), max(resampled.high, cautious.high)
    )


def cheapest(settings: Mapping[Arm, Answers], free: Answers) -> Arm:
    """The setting of fewest tokens that is no more than a point below free thought here.

    Where none is, that with the most right answers.
    """
    spent = {arm: answers.tokens_PS.mean() for arm, answers in settings.items()}
    right = {arm: answers.correct_PS.mean() for arm, answers in settings.items()}
    wanted = free.correct_PS.mean() - MARGIN
    good = [arm for arm in settings if right[arm] >= wanted - 1e-9]
    if good:
        return min(good, key=lambda arm: spent[arm])
    return max(settings, key=lambda arm: (right[arm], -spent[arm]))


def of_equal_tokens(caps: Mapping[Arm, Answers], answers: Answers) -> Arm:
    """The most accurate cap that takes no more than a tenth more tokens; else the cheapest."""
    spent = {arm: of.tokens_PS.mean() for arm, of in caps.items()}
    most = 1.1 * answers.tokens_PS.mean()
    as_many = [arm for arm in caps if spent[arm] <= most]
    if not as_many:
        return min(caps, key=lambda arm: spent[arm])
    return max(as_many, key=lambda arm: (caps[arm].correct_PS.mean(), -spent[arm]))


@dataclass(frozen=True, slots=True)
class Ends:
    """What a rule closed, as shares: of all thoughts `closed`; of these, whose full thought was
    right (`full_right`), right only in full (`lost`), or only as closed (`gained`).
    """

    closed: float
    full_right: float
    lost: float
    gained: float


def ends(answers: Answers, free: Answers, cause: str) -> Ends | None:
    """The thoughts that ended by `cause`, beside the same ones in full; None where none did."""
    closed_PS = answers.causes_PS == cause
    if not closed_PS.any():
        return None
    right, full = answers.correct_PS[closed_PS] > 0, free.correct_PS[closed_PS] > 0
    return Ends(
        float(closed_PS.mean()),
        float(full.mean()),
        float((full & ~right).mean()),
        float((right & ~full).mean()),
    )


def same_thoughts(answers: Answers, free: Answers) -> float:
    """Of the thoughts that ended by themselves, the share that is as long as without the rule.

    A rule that only watches leaves a thought's tokens alone, but for the engine's rounding.
    """
    natural_PS = answers.causes_PS == "natural"
    if not natural_PS.any():
        return 1.0
    same_PS = answers.thinking_PS == free.thinking_PS
    return fmean(np.asarray(same_PS[natural_PS], float).tolist())
