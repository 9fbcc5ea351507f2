"""Intervals for accuracies and lengths measured on several samples of each problem.

Samples of one problem are alike, so the problem is the unit: intervals that took every sample for
independent would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def wilson(share: float, n: float) -> Estimate:
    """Wilson's score interval for a share observed in `n` > 0 independent trials.

    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927); `n` may be an effective, fractional number.
    """
    if n <= 0:
        raise ValueError("an interval needs at least one trial")
    spread = Z_95 * Z_95 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def accuracy(correct: Sequence[Sequence[bool]]) -> Estimate:
    """Mean accuracy over problems; `correct[i]` holds the samples of problem i.

    Wilson's interval at the effective number of trials: that at which independent trials would
    vary as much as the problems' own accuracies do; between the number of problems and of samples.
    """
    shares = [fmean(samples) for samples in correct]
    share = fmean(shares)
    total = sum(len(samples) for samples in correct)
    between = variance(shares) / len(shares) if len(shares) > 1 else 0.0
    effective = share * (1 - share) / between if between else len(shares)
    return wilson(share, min(max(effective, len(shares)), total))


def mean(values: Sequence[Sequence[float]]) -> Estimate:
    """Mean over problems with a normal interval; `values[i]` holds the samples of problem i."""
    means = [fmean(samples) for samples in values]
    centre = fmean(means)
    half = Z_95 * math.sqrt(variance(means) / len(means)) if len(means) > 1 else 0.0
    return Estimate(centre, centre - half, centre + half)
