"""Intervals for accuracies and lengths measured on several samples of each problem.

Samples of one problem resemble each other, so the problem is the unit: intervals that treated all
samples as independent would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

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
    # At 0 and 1 an end of the interval is the share itself; rounding must not cross it.
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def accuracy(correct: Sequence[Sequence[bool]]) -> Estimate:
    """Mean accuracy over problems; `correct[i]` holds the samples of problem i."""
    return share(list(map(fmean, correct)), sum(map(len, correct)))


def share(shares: Sequence[float], samples: int) -> Estimate:
    """Mean of the problems' own shares, each between 0 and 1; `samples` counts all samples.

    Wilson's interval at the effective number of trials: so many independent trials would vary as
    much as the problems' shares do. It lies between the numbers of problems and of samples.
    """
    centre = fmean(shares)
    between = variance(shares) / len(shares) if len(shares) > 1 else 0.0
    effective = centre * (1 - centre) / between if between else len(shares)
    return wilson(centre, min(max(effective, len(shares)), samples))


def mean(values: Sequence[Sequence[float]]) -> Estimate:
    """Mean over problems with Student's interval; `values[i]` holds the samples of problem i.

    One problem alone has no interval: its ends are the mean.
    """
    means = [fmean(samples) for samples in values]
    centre = fmean(means)
    half = _half_width(means)
    return Estimate(centre, centre - half, centre + half)


def paired(differences: Sequence[Sequence[float]]) -> Estimate:
    """Mean over groups of the mean difference of paired shares, each from -1 to 1.

    `differences[g][i]` belongs to problem i of group g. The interval is Bonett and Price's (Br. J.
    Math. Stat. Psychol. 65, 2012): it adds two problems to each group, one that gains and one that
    loses, so that a few problems which all agree prove little.
    """
    centre = fmean(map(fmean, differences))
    shifted, variance_of_mean = 0.0, 0.0
    for group in differences:
        n = len(group) + 2
        middle = sum(group) / n
        spread = (sum(x * x for x in group) + 2) / n - middle * middle
        shifted += middle / len(differences)
        variance_of_mean += spread / n / len(differences) ** 2
    half = Z_95 * math.sqrt(variance_of_mean)
    low, high = max(-1.0, shifted - half), min(1.0, shifted + half)
    return Estimate(centre, min(centre, low), max(centre, high))


def combined(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates, by the method of variance estimates recovery.

    G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008).
    """
    n, centre = len(estimates), fmean(each.mean for each in estimates)
    below = math.sqrt(sum((each.mean - each.low) ** 2 for each in estimates)) / n
    above = math.sqrt(sum((each.high - each.mean) ** 2 for each in estimates)) / n
    return Estimate(centre, centre - below, centre + above)


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """mean(above) / mean(below), paired: each holds one value per problem, in the same order.

    Student's interval by the delta method. `below` must not be 0 on average.
    """
    bottom = fmean(below)
    found = fmean(above) / bottom
    residuals = [(a - found * b) / bottom for a, b in zip(above, below, strict=True)]
    half = _half_width(residuals)
    return Estimate(found, found - half, found + half)


def any_pass(samples: int, correct: int, k: int) -> float:
    """pass@k: chance that `k` of `samples` answers, drawn without replacement, hold a correct one.

    The unbiased estimator of Chen et al. (arXiv 2107.03374, section 2.1).
    """
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def all_pass(samples: int, correct: int, k: int) -> float:
    """Chance that `k` of `samples` answers, drawn without replacement, are all correct."""
    return math.comb(correct, k) / math.comb(samples, k)


def student_t(level: float, freedom: float) -> float:
    """Quantile of Student's t distribution for `freedom` >= 2, to 1 %.

    The expansion of Abramowitz and Stegun (1964), 26.7.5.
    """
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom ** (i + 1) for i, term in enumerate(terms))


def _half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the values' mean; 0 for one value."""
    n = len(values)
    return student_t(0.975, n - 1) * math.sqrt(variance(values) / n) if n > 1 else 0.0
