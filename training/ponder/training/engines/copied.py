"""Samples from a copy of the weights, where the weights in training cannot or should not sample.

Under autocast the weights stay float32 and are cast at every token, and the cache holds float32
keys beside bfloat16 values. In a copy everything has one type, as in a server. The copy takes two
bytes per parameter on every process (four in float32), whether the model is sharded or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ponder.engine.tokenizer import ModelFiles

from ..rollout.sampler import sample
from .protocol import Weights

SMALL = 10_000_000
"""Parameters up to which a GPU samples in float32, too: starting kernels takes longest there. The
bound is ours and not measured.
"""


def rounded_kind(device: torch.device, parameters: int) -> torch.dtype:
    """The copy's type where a recipe's arithmetic is bfloat16. A CPU, and a GPU with a small model,
    samples as fast in float32, which is closer to the weights in training.
    """
    large = device.type == "cuda" and parameters > SMALL
    return torch.bfloat16 if large else torch.float32


class CopySampler:
    """Samples from weights of type `kind`: those of `base`, until `load` replaces them."""

    def __init__(
        self, base: ModelFiles, room: float, device: torch.device, kind: torch.dtype
    ) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(base.name, dtype=kind).to(device)
        self.model.eval()
        self._room = room

    def close(self) -> None:
        """Do nothing: the copy ends with this process."""

    @torch.no_grad()
    def load(self, weights: Weights, _: int) -> None:
        """Replace the weights, tensor by tensor, whatever their version is."""
        state = self.model.state_dict()
        for name, weight in weights():
            state[name].copy_(weight)

    def sample(
        self,
        temperature: float,
        prompts: Sequence[Sequence[int]],
        noise_BT: torch.Tensor,
        stop_ids: frozenset[int],
    ) -> list[list[int]]:
        """A `Sampler` once `temperature` is bound."""
        return sample(
            self.model,
            prompts,
            noise_BT,
            stop_ids=stop_ids,
            temperature=temperature,
            room=self._room,
        )
