"""Truncated importance sampling, which corrects the loss on rollouts of another engine.

vLLM and the trainer compute different probabilities from the same weights. A token that the sampler
drew with probability q, and to which the trainer gives p, counts min(p / q, C) times: Yao et al.
2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", with C = 2; TRL and
verl have it, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ..method.kernel import LossInputs, PerToken
from ..rollout.rows import Row

DRAWN = "drawn_log_probs"
"""The column of a micro-batch with the sampler's log-probabilities of its tokens."""

_LONGEST_HEAD = 256
"""Most forced tokens behind a prompt, such as a hint's, before the sampled ones begin."""

Request = tuple[int, ...]


class Drawn:
    """Log-probabilities of the tokens that one version of the weights sampled, by prompt."""

    def __init__(self) -> None:
        self._found: dict[Request, list[tuple[list[int], list[float]]]] = defaultdict(list)

    def note(self, asked: Sequence[int], ids: list[int], log_probs: list[float]) -> None:
        self._found[tuple(asked)].append((ids, log_probs))

    def of(self, asked: Sequence[int], ids: Sequence[int]) -> list[float] | None:
        """Log-probabilities of `ids` if they begin a sample behind `asked`; None otherwise."""
        given = list(ids)
        for sampled, log_probs in self._found.get(tuple(asked), ()):
            if sampled[: len(given)] == given:
                return log_probs[: len(given)]
        return None

    def row(self, row: Row) -> list[float]:
        """Log-probabilities of every token of a packed row; NaN for unsampled tokens."""
        trunk = (*row.prompt, *row.completion)
        found = [float("nan")] * row.tokens
        first = len(row.prompt)
        for start in range(first, min(len(trunk), first + _LONGEST_HEAD)):
            if (known := self.of(trunk[:start], trunk[start:])) is not None:
                found[start : len(trunk)] = known
                break
        at = len(trunk)
        for chunk in row.chunks:
            begin, end = at + chunk.inserted, at + len(chunk.ids)
            asked = (*trunk[: chunk.start], *chunk.ids[: chunk.inserted])
            if (known := self.of(asked, chunk.ids[chunk.inserted :])) is not None:
                found[begin:end] = known
            at = end
        return found

    def collated(self, rows: Sequence[Row], width: int) -> Tensor:
        """Log-probabilities of rows, (B, W-1), aligned as by `rollout.rows.collate`."""
        drawn_BW = torch.full((len(rows), width), float("nan"))
        for i, row in enumerate(rows):
            drawn_BW[i, : row.tokens] = torch.tensor(self.row(row))
        return drawn_BW[:, 1:]


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

    `sampler_ratio`: p / q; `sampler_truncated`: tokens whose ratio is above C;
    `sampler_kl`: KL(q || p) in nats, by p / q - 1 - log(p / q), which is never negative (Schulman
    2020, "Approximating KL Divergence", k3).

        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[0.1, 0.2]]).log()
        >>> weights(p, q, torch.ones(1, 2), cap=2.0)[0]
        tensor([[2., 1.]])
    """
    known_BT = ~drawn_BT.isnan()
    log_ratio_BT = torch.where(known_BT, old_BT - drawn_BT.nan_to_num(), 0.0)
    ratio_BT = log_ratio_BT.exp()
    stats = {
        "sampler_ratio": (ratio_BT * mask_BT).sum(),
        "sampler_truncated": ((ratio_BT > cap) * mask_BT).sum(),
        "sampler_kl": ((ratio_BT - 1 - log_ratio_BT) * mask_BT).sum(),
    }
    return ratio_BT.clamp(max=cap), stats
