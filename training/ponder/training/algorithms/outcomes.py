"""What rollouts earned, and what that makes their tokens worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How B rollouts ended.

    `correct_B` is the verifier's word (bool); `formatted_B` says that the thought was closed and
    an answer found (bool); `length_B` counts generated tokens; `budget_B` is what the hint
    promised, in tokens, 0 where there was no hint.
    """

    correct_B: Tensor
    formatted_B: Tensor
    length_B: Tensor
    budget_B: Tensor


@dataclass(frozen=True, slots=True)
class AnytimeOutcomes:
    """How the A summaries of B thoughts cut at m budgets ended.

    `correct_BmA` is the verifier's word (bool); `formatted_BmA` says that thought and summary
    hold exactly one end marker, that the thought did not end the text and that the summary did
    within its tokens, which the paper does not ask for: half an answer is none (bool); `length_B`
    counts the tokens that the model wrote into its thought, its own end marker included.
    """

    correct_BmA: Tensor
    formatted_BmA: Tensor
    length_B: Tensor


@dataclass(frozen=True, slots=True)
class Advantages:
    """What the tokens of B rollouts are worth, by segments that start at the tokens `starts`.

    `segments_BS` holds one number for each of S segments, the last of which is open; most methods
    have one segment, the whole response. `summaries_BmA` is set where thoughts were cut and
    summarised. `parts` are named terms of `segments_BS`, for the logs.
    """

    segments_BS: Tensor
    starts: tuple[int, ...] = (0,)
    summaries_BmA: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    def tokens(self, length_B: Tensor, longest: int) -> Tensor:
        """The advantages (B, `longest`) of a row's first `length_B` tokens; 0 after them."""
        position_T = torch.arange(longest, device=self.segments_BS.device)
        starts_S = torch.tensor(self.starts, device=self.segments_BS.device)
        segment_T = torch.searchsorted(starts_S, position_T, right=True) - 1
        written_BT = position_T < length_B[:, None]
        return torch.where(written_BT, self.segments_BS[:, segment_T], 0)
