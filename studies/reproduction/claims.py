"""The claims of docs/protocol.md, computed from the records of the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ponder.evaluation.intervals import Estimate, any_pass
from ponder.evaluation.resampling import (
    Floats,
    Indices,
    bootstrap,
    paired_bootstrap,
    simultaneous_lower,
)

from .measure import GRID, HINTS, MANY_SAMPLES, NATURAL_SAMPLES
from .records import Record

TRAINED_BUDGETS = (48, 96, 144, 192)
HARD_BELOW = 0.6
UNINFORMATIVE_BELOW = 0.01
_BRANCHES = ("q_rise", "q_fall", "q_recover")
_MASKS = ("masked_low", "masked_high")


Unit = Literal["%", "points", ""]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim: a value with its 95 % interval, against what the paper reports.

    Value, interval and target share `unit`: "%", "points" or "" for a plain number. `seeds`
    counts the runs of the claim's arm, `n` the test problems.
    """

    id: str
    value: float
    low: float
    high: float | None
    target: float
    direction_holds: bool
    magnitude_holds: bool
    n: int
    seeds: int
    unit: Unit = "points"
    lower_is_better: bool = False
    note: str = ""


class MeasuredArm:
    """The finished runs of an arm (or the cold start), as arrays (S seeds, P problems)."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = sorted(records, key=lambda record: record["seed"])

    @property
    def seeds(self) -> int:
        return len(self.records)

    def accuracy(self, mode: str = "natural") -> Floats:
        answers = [self._answers(record, mode) for record in self.records]
        return np.array([np.array(a["correct"], float) / a["samples"] for a in answers])

    def tokens(self, mode: str = "natural") -> Floats:
        return np.array([self._answers(r, mode)["tokens"] for r in self.records])

    def anytime(self) -> Floats:
        """Accuracy (budgets, S, P) at GRID."""
        counts = [
            np.array(r["measured"]["anytime"]) / r["measured"]["anytime_samples"]
            for r in self.records
        ]
        return np.stack(counts, axis=1)

    def samples(self) -> int:
        """Answers to each problem in natural mode."""
        return min(int(self._answers(r, "natural")["samples"]) for r in self.records)

    def passes(self, k: int) -> Floats:
        """pass@k (S, P) in natural mode."""
        return np.array(
            [
                [any_pass(natural["samples"], correct, k) for correct in natural["correct"]]
                for natural in (self._answers(r, "natural") for r in self.records)
            ]
        )

    def share(self, names: Sequence[str]) -> float:
        """Share of the tokens, by the sum of the steps' metrics of these names."""
        shares = [sum(s.get(n, 0.0) for n in names) for r in self.records for s in r["steps"]]
        return float(np.mean(shares))

    def of_seeds(self, other: MeasuredArm) -> MeasuredArm:
        """The runs whose seeds `other` has, too, so that seed i is compared with seed i."""
        seeds = {record["seed"] for record in other.records}
        return MeasuredArm([record for record in self.records if record["seed"] in seeds])

    def _answers(self, record: Record, mode: str) -> Mapping[str, Any]:
        measured = record["measured"]
        found: Mapping[str, Any] = measured[mode] if mode in measured else measured["hinted"][mode]
        return found


def claims(
    arms: Mapping[str, MeasuredArm], cold: MeasuredArm, difficulty: Sequence[int]
) -> list[Claim]:
    """Every claim whose arms have finished runs of a common seed."""
    made = []
    for needed, make in _CLAIMS:
        found = [arms[name] for name in needed if name in arms]
        if len(found) == len(needed) and found[0].of_seeds(found[-1]).seeds:
            made += make(arms, cold, np.array(difficulty, dtype=float))
    return made


def hard_problems(cold: MeasuredArm) -> Indices:
    """Indices of the problems that the cold start mostly fails."""
    return np.flatnonzero(cold.accuracy()[0] < HARD_BELOW)


def pending(arms: Mapping[str, MeasuredArm]) -> list[str]:
    """Arms for which a claim still waits."""
    return sorted({name for needed, _ in _CLAIMS for name in needed if name not in arms})


def same_seeds(one: MeasuredArm, other: MeasuredArm) -> tuple[MeasuredArm, MeasuredArm]:
    """Their runs of the seeds that both have."""
    return one.of_seeds(other), other.of_seeds(one)


def _claim(
    name: str,
    estimate: Estimate,
    target: float,
    arm: MeasuredArm,
    *,
    unit: Unit = "points",
    lower_is_better: bool = False,
    note: str = "",
    n: int | None = None,
) -> Claim:
    scale = 100 if unit else 1
    value, low, high = (scale * x for x in (estimate.mean, estimate.low, estimate.high))
    return Claim(
        name,
        value,
        low,
        high,
        target,
        direction_holds=high < 0 if lower_is_better else low > 0,
        magnitude_holds=value <= target if lower_is_better else value >= target,
        n=arm.accuracy().shape[1] if n is None else n,
        seeds=arm.seeds,
        unit=unit,
        lower_is_better=lower_is_better,
        note=note,
    )


def _hbpo(arms: Mapping[str, MeasuredArm], cold: MeasuredArm, difficulty: Floats) -> list[Claim]:
    hbpo = arms["hbpo"]
    return [
        _fewer("hbpo_tokens", hbpo, cold, -60.6),
        _claim("hbpo_accuracy", paired_bootstrap(hbpo.accuracy(), cold.accuracy()), 3.14, hbpo),
        _effort(hbpo, cold, difficulty),
        _hint_obeyed(hbpo, cold),
    ]


def _hbpo_grpo(
    arms: Mapping[str, MeasuredArm], cold: MeasuredArm, difficulty: Floats
) -> list[Claim]:
    hbpo, grpo = same_seeds(arms["hbpo"], arms["grpo"])
    gain = paired_bootstrap(hbpo.accuracy(), grpo.accuracy())
    return [
        _fewer("hbpo_vs_grpo_tokens", hbpo, grpo, -3.0),
        _claim("hbpo_vs_grpo_accuracy", gain, 2.2, hbpo),
    ]


def _fewer(name: str, arm: MeasuredArm, other: MeasuredArm, target: float) -> Claim:
    change = paired_bootstrap(arm.tokens(), other.tokens(), compare="change")
    return _claim(name, change, target, arm, unit="%", lower_is_better=True)


def _penalty(arms: Mapping[str, MeasuredArm], cold: MeasuredArm, difficulty: Floats) -> list[Claim]:
    hbpo, penalty = same_seeds(arms["hbpo"], arms["length-penalty"])
    tokens_KSP = _frontier(penalty, cold, "tokens")
    correct_KSP = _frontier(penalty, cold, "correct")
    accuracy_SP, tokens_SP = hbpo.accuracy(), hbpo.tokens()

    def ahead(seeds: Indices, _: Indices, problems: Indices) -> float:
        at = tokens_SP[np.ix_(seeds, problems)].mean()
        x_K = tokens_KSP[:, seeds][:, :, problems].mean((1, 2))
        y_K = correct_KSP[:, seeds][:, :, problems].mean((1, 2))
        order = np.argsort(x_K)
        # The penalty's best accuracy with at most so many tokens.
        frontier = np.interp(at, x_K[order], np.maximum.accumulate(y_K[order]))
        return float(accuracy_SP[np.ix_(seeds, problems)].mean() - frontier)

    shortest = tokens_KSP.mean((1, 2)).min()
    note = "beyond the frontier's shortest point" if tokens_SP.mean() < shortest else ""
    estimate = bootstrap(ahead, hbpo.seeds, 1, accuracy_SP.shape[1])
    gain = paired_bootstrap(hbpo.accuracy(), penalty.accuracy())
    lengths = f"{hbpo.tokens().mean():.0f} tokens against {penalty.tokens().mean():.0f}"
    return [
        _claim("hbpo_vs_penalty_accuracy", gain, 7.2, hbpo, note=lengths),
        _claim("hbpo_vs_length_penalty", estimate, 0.0, hbpo, note=note),
    ]


def _frontier(penalty: MeasuredArm, cold: MeasuredArm, what: str) -> Floats:
    """(checkpoints, S, P): the cold start, then every saved checkpoint."""
    natural = cold.accuracy() if what == "correct" else cold.tokens()
    points = [np.repeat(natural, penalty.seeds, axis=0)]
    for k in range(len(penalty.records[0]["frontier"])):
        points.append(np.array([r["frontier"][k][what] for r in penalty.records], dtype=float))
        if what == "correct":
            points[-1] /= NATURAL_SAMPLES
    return np.stack(points)


def _budget_count(
    arms: Mapping[str, MeasuredArm], cold: MeasuredArm, difficulty: Floats
) -> list[Claim]:
    four, one = same_seeds(arms["hbpo"], arms["hbpo-1-budget"])
    estimate = paired_bootstrap(four.accuracy(), one.accuracy())
    return [_claim("hbpo_budget_count", estimate, 0.0, one)]


def _effort(hbpo: MeasuredArm, cold: MeasuredArm, difficulty: Floats) -> Claim:
    """The mean of the seeds' correlations; averaging lengths first would raise the correlation."""
    tokens_SP, before_P = hbpo.tokens(), cold.tokens()[0]

    def correlations(seeds: Indices, problems: Indices) -> tuple[float, float]:
        """The correlations before and after training."""
        level = _standard_ranks(difficulty[problems])
        before = _standard_ranks(before_P[problems]) @ level
        after = [_standard_ranks(tokens_P[problems]) @ level for tokens_P in tokens_SP[seeds]]
        return float(before), float(np.mean(after))

    def gain(seeds: Indices, _: Indices, problems: Indices) -> float:
        before, after = correlations(seeds, problems)
        return after - before

    estimate = bootstrap(gain, hbpo.seeds, 1, len(before_P))
    before, after = correlations(np.arange(hbpo.seeds), np.arange(len(before_P)))
    # Noise in the problems' mean lengths lowers the correlation, the more the fewer the samples.
    note = (
        f"{before:.3f} before ({cold.samples()} samples a problem), "
        f"{after:.3f} after ({hbpo.samples()})"
    )
    return _claim("effort_correlation", estimate, 0.0, hbpo, unit="", note=note)


def _hint_obeyed(hbpo: MeasuredArm, cold: MeasuredArm) -> Claim:
    low, high = str(HINTS[0]), str(HINTS[-1])
    high_SP, low_SP = hbpo.tokens(high), hbpo.tokens(low)
    cold_high_P, cold_low_P = cold.tokens(high)[0], cold.tokens(low)[0]

    def gain(seeds: Indices, _: Indices, problems: Indices) -> float:
        after = high_SP[np.ix_(seeds, problems)].mean() / low_SP[np.ix_(seeds, problems)].mean()
        return float(after / (cold_high_P[problems].mean() / cold_low_P[problems].mean()) - 1)

    estimate = bootstrap(gain, hbpo.seeds, 1, high_SP.shape[1])
    before = cold_high_P.mean() / cold_low_P.mean()
    after = high_SP.mean() / low_SP.mean()
    note = f"hint {high} over hint {low}: {before:.2f} before, {after:.2f} after"
    return _claim("hbpo_hint_obeyed", estimate, 0.0, hbpo, unit="%", note=note)


def _brpo(arms: Mapping[str, MeasuredArm], cold: MeasuredArm, difficulty: Floats) -> list[Claim]:
    brpo, grpo = same_seeds(arms["brpo"], arms["grpo"])
    ours, theirs = brpo.anytime(), grpo.anytime()
    at = [GRID.index(budget) for budget in TRAINED_BUDGETS]
    bounds = simultaneous_lower(ours[at], theirs[at])
    worst = 100 * min(bounds)
    value = 100 * float((ours[at].mean((1, 2)) - theirs[at].mean((1, 2))).min())
    n = ours.shape[2]
    every = Claim(
        "brpo_every_budget", value, worst, None, -1.0, worst >= -1, value >= -1, n, brpo.seeds,
        note="simultaneous lower bounds in points at "
        + ", ".join(
            f"{b}: {100 * x:.1f}" for b, x in zip(TRAINED_BUDGETS, bounds, strict=True)
        ),
    )  # fmt: skip
    return [
        _claim("brpo_anytime", paired_bootstrap(ours.mean(0), theirs.mean(0)), 3.0, brpo),
        _claim("brpo_final", paired_bootstrap(ours[-1], theirs[-1]), 1.8, brpo),
        every,
    ]


def _htpo(arms: Mapping[str, MeasuredArm], cold: MeasuredArm, difficulty: Floats) -> list[Claim]:
    htpo, dapo = same_seeds(arms["htpo"], arms["dapo"])
    hard = hard_problems(cold)
    ours, theirs = htpo.accuracy()[:, hard], dapo.accuracy()[:, hard]
    branches, masks = htpo.share(_BRANCHES), htpo.share(_MASKS)
    note = (
        f"{len(hard)} hard problems; {branches:.3%} of tokens in q-branches, {masks:.3%} in masks"
    )
    if branches + masks < UNINFORMATIVE_BELOW:
        note += ": uninformative"
    widening = [arm.passes(MANY_SAMPLES)[:, hard] - arm.passes(1)[:, hard] for arm in (htpo, dapo)]
    return [
        _claim("htpo_hard", paired_bootstrap(ours, theirs), 8.6, htpo, note=note, n=len(hard)),
        _claim("htpo_margin", paired_bootstrap(*widening), 0.0, htpo, note=note, n=len(hard)),
    ]


_CLAIMS: tuple[
    tuple[tuple[str, ...], Callable[[Mapping[str, MeasuredArm], MeasuredArm, Floats], list[Claim]]],
    ...,
] = (
    (("hbpo",), _hbpo),
    (("hbpo", "grpo"), _hbpo_grpo),
    (("hbpo", "length-penalty"), _penalty),
    (("hbpo", "hbpo-1-budget"), _budget_count),
    (("brpo", "grpo"), _brpo),
    (("htpo", "dapo"), _htpo),
)


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation; ties share their mean rank."""
    return float(_standard_ranks(x) @ _standard_ranks(y))


def _standard_ranks(values: Floats) -> Floats:
    """Ranks less their mean, of length 1: a product of two is the correlation."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends: Floats = np.cumsum(count).astype(float)
    ranks: Floats = (ends - (count - 1) / 2)[place] - (len(values) + 1) / 2
    standard: Floats = ranks / np.sqrt(ranks @ ranks)
    return standard
