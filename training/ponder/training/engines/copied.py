"""A copy of the weights that samples, where those in training cannot or should not.

Under autocast the weights stay float32 and are cast at every token, and the cache holds float32
keys beside bfloat16 values. In a copy all of it is of one kind, as in a server. It takes two bytes
a parameter on every process (four in float32), sharded or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ponder.engine.tokenizer import ModelFiles

from ..rollout.sampler import sample
from .publishing import Weights


def rounded_kind(device: torch.device) -> torch.dtype:
    """Of the copy where the arithmetic of a recipe is bfloat16: a CPU samples as fast in float32,
    which is closer to the weights in training.
    """
    return torch.bfloat16 if device.type == "cuda" else torch.float32


class CopySampler:
    """Samples from weights that `load` hands over, as `kind`; it begins with those of `base`."""

    def __init__(
        self, base: ModelFiles, room: float, device: torch.device, kind: torch.dtype
    ) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(base.name, dtype=kind).to(device)
        self.model.eval()
        self._room = room

    def close(self) -> None:
        """It ends with this process."""

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
        """A `Sampler` once its temperature is given."""
        return sample(
            self.model,
            prompts,
            noise_BT,
            stop_ids=stop_ids,
            temperature=temperature,
            room=self._room,
        )
