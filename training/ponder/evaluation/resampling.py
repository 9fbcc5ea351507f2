"""Compares two ways of training, measured on several seeds and the same problems.

Training runs and problems are both random samples, so both are resampled, independently of each
other (the pigeonhole bootstrap: A. B. Owen, Annals of Applied Statistics 1, 2007). For many seeds
its intervals are never too narrow. For the few seeds of a study there are two corrections. Of S
seeds S - 1 are drawn, which makes the variance between seeds unbiased (Rao and Wu, J. Am. Stat.
Assoc. 83, 1988). Intervals are widened by the ratio of Student's t to the normal quantile, at the
degrees of freedom that Satterthwaite's formula gives for seeds and problems together. Where both
arms have the same number of seeds, seed i of one is paired with seed i of the other. An arm with
one seed is taken as given: the interval then holds for that run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Estimate, student_t

Compare = Literal["difference", "change"]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Statistic = Callable[[Indices, Indices, Indices], float]
"""A statistic of the drawn indices: of one arm's seeds, of the other's, and of the problems."""

_BLOCK = 1000  # replicates at once: the weights of 1000 problems take 8 MB


def paired_bootstrap(
    values_a_SP: ArrayLike,
    values_b_SP: ArrayLike,
    *,
    n: int = 10_000,
    seed: int = 0,
    compare: Compare = "difference",
) -> Estimate:
    """Compare a with b, with a 95 % percentile interval from `n` replicates.

    Values are means over the samples of a problem, by seed (S, may differ) and problem (P, the
    same problems in the same order). `difference` is mean(a) - mean(b), `change` is
    mean(a) / mean(b) - 1. Raises `ValueError` for shapes that do not fit and changes against 0.
    """
    pair = _Pair(values_a_SP, values_b_SP, compare)
    replicates = pair.replicates(n, np.random.default_rng(seed))
    low, high = np.quantile(replicates, (0.025, 0.975))
    wider = pair.widening(0.975)
    return Estimate(
        pair.estimate,
        pair.estimate - wider * (pair.estimate - float(low)),
        pair.estimate + wider * (float(high) - pair.estimate),
    )


def simultaneous_lower(
    values_a_BSP: ArrayLike,
    values_b_BSP: ArrayLike,
    *,
    n: int = 10_000,
    seed: int = 0,
) -> list[float]:
    """Lower bounds of mean(a) - mean(b) at every budget (B), all valid together at 95 %.

    One-sided, by the quantile of the largest standardised deviation over the budgets (max-t); the
    replicates of all budgets share their seeds and problems.
    """
    a_BSP, b_BSP = np.asarray(values_a_BSP, float), np.asarray(values_b_BSP, float)
    if a_BSP.ndim != 3 or b_BSP.ndim != 3 or len(a_BSP) != len(b_BSP):
        raise ValueError(f"shapes {a_BSP.shape} and {b_BSP.shape}: expected budgets first in both")
    pairs = [_Pair(a, b, "difference") for a, b in zip(a_BSP, b_BSP, strict=True)]
    estimates_B = np.array([pair.estimate for pair in pairs])
    # The same generator state for every budget draws the same seeds and problems.
    replicates_BN = np.array([p.replicates(n, np.random.default_rng(seed)) for p in pairs])
    errors_B = replicates_BN.std(axis=1)
    above_BN = replicates_BN - estimates_B[:, None]
    # A budget at which nothing varies has its estimate as its bound.
    standard_BN = np.divide(
        above_BN, errors_B[:, None], out=np.zeros_like(above_BN), where=errors_B[:, None] > 0
    )
    critical = float(np.quantile(standard_BN.max(axis=0), 0.95))
    wider_B = np.array([pair.widening(0.95) for pair in pairs])
    bounds: list[float] = (estimates_B - critical * wider_B * errors_B).tolist()
    return bounds


def bootstrap(
    statistic: Statistic, seeds: int, others: int, problems: int, *, n: int = 10_000, seed: int = 0
) -> Estimate:
    """Any statistic of two arms with its 95 % interval, made as `paired_bootstrap` makes it.

    `seeds` and `others` are the numbers of the arms' runs, 1 for an arm that is taken as given; the
    runs are drawn independently. The degrees of freedom come from the jackknife's variances.
    """
    units = (seeds, others, problems)
    draws = (max(1, seeds - 1), max(1, others - 1), problems)
    rng = np.random.default_rng(seed)
    whole = [np.arange(count) for count in units]
    estimate = statistic(*whole)
    replicates = [
        statistic(*(rng.integers(0, count, many) for count, many in zip(units, draws, strict=True)))
        for _ in range(n)
    ]
    variances = []
    for place, count in enumerate(units):
        if count > 1:
            left_out = [
                statistic(*(np.delete(w, i) if at == place else w for at, w in enumerate(whole)))
                for i in range(count)
            ]
            variances.append((float(np.var(left_out)) * (count - 1), count))
    wider = student_t(0.975, _satterthwaite(variances)) / NormalDist().inv_cdf(0.975)
    low, high = np.quantile(replicates, (0.025, 0.975))
    return Estimate(
        estimate,
        estimate - wider * (estimate - float(low)),
        estimate + wider * (float(high) - estimate),
    )


class _Pair:
    """Two arms on the same problems, and how they are compared."""

    def __init__(self, values_a_SP: ArrayLike, values_b_SP: ArrayLike, compare: Compare) -> None:
        self._a_SP, self._b_SP = np.asarray(values_a_SP, float), np.asarray(values_b_SP, float)
        shapes = self._a_SP.shape, self._b_SP.shape
        if any(len(shape) != 2 or 0 in shape for shape in shapes) or shapes[0][1] != shapes[1][1]:
            raise ValueError(f"shapes {shapes[0]} and {shapes[1]}: expected (seeds, problems)")
        if compare == "change" and not self._b_SP.any():
            raise ValueError("a change against 0 has no size: compare by the difference")
        self._compare = compare
        self.estimate = float(self._compared(self._a_SP.mean(), self._b_SP.mean()))

    def replicates(self, n: int, rng: np.random.Generator) -> Floats:
        """`n` comparisons of resampled arms."""
        blocks = [min(_BLOCK, n - start) for start in range(0, n, _BLOCK)]
        return np.concatenate([self._block(size, rng) for size in blocks])

    def widening(self, level: float) -> float:
        """Student's t over the normal quantile at `level`."""
        return student_t(level, self._freedom()) / NormalDist().inv_cdf(level)

    def _block(self, size: int, rng: np.random.Generator) -> Floats:
        problems_NP = _weights(self._a_SP.shape[1], self._a_SP.shape[1], size, rng)
        seeds_a_NS = _seed_weights(len(self._a_SP), size, rng)
        paired = len(self._a_SP) == len(self._b_SP)
        seeds_b_NS = seeds_a_NS if paired else _seed_weights(len(self._b_SP), size, rng)
        mean_a_N = ((seeds_a_NS @ self._a_SP) * problems_NP).sum(axis=1)
        mean_b_N = ((seeds_b_NS @ self._b_SP) * problems_NP).sum(axis=1)
        return self._compared(mean_a_N, mean_b_N)

    def _compared(self, a: Floats, b: Floats) -> Floats:
        return a - b if self._compare == "difference" else a / b - 1

    def _freedom(self) -> float:
        """Satterthwaite: degrees of freedom of the variances of seeds and of problems together.

        For a relative change they use its first order: (a - (1 + change) b) / mean(b).
        """
        a_SP, b_SP = self._a_SP, self._b_SP
        if self._compare == "change":
            a_SP, b_SP = a_SP / b_SP.mean(), (1 + self.estimate) * b_SP / b_SP.mean()
        sources = [a_SP.mean(axis=0) - b_SP.mean(axis=0)]
        if len(a_SP) == len(b_SP):
            sources.append(a_SP.mean(axis=1) - b_SP.mean(axis=1))
        else:
            sources += [a_SP.mean(axis=1), b_SP.mean(axis=1)]
        varying = [source for source in sources if len(source) > 1]
        return _satterthwaite([(float(it.var(ddof=1)) / len(it), len(it)) for it in varying])


def _satterthwaite(variances: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of pairs (variance of a mean, number of its values); inf without variance.

    Two seeds alone have one degree of freedom, which counts as two.
    """
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return float("inf")
    return max(2.0, total**2 / sum(v**2 / (size - 1) for v, size in variances))


def _seed_weights(seeds: int, size: int, rng: np.random.Generator) -> Floats:
    return _weights(seeds, max(1, seeds - 1), size, rng)


def _weights(units: int, draws: int, size: int, rng: np.random.Generator) -> Floats:
    """`size` rows of weights over `units`: the shares of `draws` draws with replacement."""
    counts: Floats = rng.multinomial(draws, np.full(units, 1 / units), size=size) / draws
    return counts
