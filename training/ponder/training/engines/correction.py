"""Truncated importance sampling, which corrects the loss on rollouts of another engine.

vLLM and the trainer compute different probabilities from the same weights. A token that the sampler
drew with probability q, and to which the trainer gives p, counts min(p / q, C) times: Yao et al.
2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", with C = 2; TRL and
verl have it, too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from ..method.kernel import LossInputs, PerToken
from ..rollout.rows import Row

DRAWN = "drawn_log_probs"
"""The column of a micro-batch with the sampler's log-probabilities of its tokens."""

UNKNOWN = "sampler_unknown"
"""The sum of the learnt tokens whose probability q is unknown."""

OF_KNOWN = frozenset({"sampler_ratio", "sampler_truncated", "sampler_kl"})
"""Sums over the learnt tokens whose probability q is known."""


class Drawn:
    """Log-probabilities of the tokens that one version of the weights sampled.

    A sample counts for every row that begins as it does: until they differ, both had the same
    distributions. So a row is found again whether it was sampled at once or piece by piece.
    """

    def __init__(self) -> None:
        self._found: dict[int, list[tuple[list[int], list[float]]]] = defaultdict(list)

    def note(self, asked: Sequence[int], ids: list[int], log_probs: list[float]) -> None:
        (*_, key) = accumulate(asked, _key, initial=0)
        self._found[key].append((ids, log_probs))

    def row(self, row: Row) -> list[float]:
        """Log-probabilities of every token of a packed row; NaN for unsampled tokens."""
        trunk = (*row.prompt, *row.completion)
        keys = list(accumulate(trunk, _key, initial=0))
        found = self._known(trunk, 0)
        for chunk in row.chunks:
            found += self._known(chunk.ids, keys[chunk.start])
        return found

    def _known(self, ids: Sequence[int], key: int) -> list[float]:
        """Log-probabilities of `ids` behind the tokens that have this key."""
        found = [math.nan] * len(ids)
        for start, before in enumerate(accumulate(ids, _key, initial=key)):
            if behind := self._found.get(before):
                rest = ids[start:]
                sampled, log_probs = max(behind, key=lambda it: _shared(it[0], rest))
                shared = _shared(sampled, rest)
                found[start : start + shared] = log_probs[:shared]
        return found

    def collated(self, rows: Sequence[Row], width: int) -> Tensor:
        """Log-probabilities of rows, (B, W-1), aligned as by `rollout.rows.collate`."""
        drawn_BW = torch.full((len(rows), width), float("nan"))
        for i, row in enumerate(rows):
            drawn_BW[i, : row.tokens] = torch.tensor(self.row(row))
        return drawn_BW[:, 1:]


def _key(before: int, token: int) -> int:
    """The key of some tokens, from that of all but the last; 0 is the key of none."""
    return hash((before, token))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with.

    >>> _shared([1, 2, 3], [1, 2, 4, 5]), _shared([1], [1, 2])
    (2, 1)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def corrected(
    found: PerToken, rows: LossInputs, drawn_BT: Tensor | None, cap: float | None
) -> PerToken:
    """The objective with its tokens weighed by `weights`; unchanged without a cap."""
    if drawn_BT is None or cap is None:
        return found
    weight_BT, more = weights(rows.old_log_probs_BT, drawn_BT, rows.mask_BT, cap)
    return PerToken(found.per_token_BT * weight_BT, {**found.stats, **more})


def weights(
    old_BT: Tensor, drawn_BT: Tensor, mask_BT: Tensor, cap: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """min(p / q, C) of every token, 1 where q is unknown; and sums over the learnt tokens.

    `sampler_unknown`: tokens whose q is unknown, which the other sums leave out;
    `sampler_ratio`: p / q; `sampler_truncated`: tokens whose ratio is above C;
    `sampler_kl`: KL(q || p) in nats, by p / q - 1 - log(p / q), which is never negative (Schulman
    2020, "Approximating KL Divergence", k3).

        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[0.1, 0.2]]).log()
        >>> weights(p, q, torch.ones(1, 2), cap=2.0)[0]
        tensor([[2., 1.]])
    """
    known_BT = ~drawn_BT.isnan()
    told_BT = mask_BT * known_BT
    log_ratio_BT = torch.where(known_BT, old_BT - drawn_BT.nan_to_num(), 0.0)
    ratio_BT = log_ratio_BT.exp()
    stats = {
        UNKNOWN: (mask_BT * ~known_BT).sum(),
        "sampler_ratio": (ratio_BT * told_BT).sum(),
        "sampler_truncated": ((ratio_BT > cap) * told_BT).sum(),
        "sampler_kl": ((ratio_BT - 1 - log_ratio_BT) * told_BT).sum(),
    }
    return ratio_BT.clamp(max=cap), stats
