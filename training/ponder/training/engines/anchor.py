"""A moving average of the weights in training, for objectives that hold the policy near it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from ponder.errors import SetupError


class Anchor:
    """An exponential moving average of the trained parameters: θ̄ ← d·θ̄ + (1 - d)·θ.

    Raises `SetupError` for sharded parameters, of which a checkpoint would keep one shard alone.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._trained = [p for p in model.parameters() if p.requires_grad]
        sharded = hasattr(model, "zero_optimization_partition_weights")  # DeepSpeed's engine
        if sharded or any(isinstance(p, DTensor) for p in self._trained):
            raise SetupError(
                "method.add: t1's anchor needs whole weights in every process: train without "
                "FSDP and DeepSpeed, or set t1.beta to 0"
            )
        self._decay = decay
        self._kept = [p.detach().clone() for p in self._trained]

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average a step towards the weights in training."""
        for kept, trained in zip(self._kept, self._trained, strict=True):
            kept.lerp_(trained, 1 - self._decay)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let the model compute with the anchor's weights inside the `with`."""
        own = [p.data for p in self._trained]
        for trained, kept in zip(self._trained, self._kept, strict=True):
            trained.data = kept
        try:
            yield
        finally:
            for trained, data in zip(self._trained, own, strict=True):
                trained.data = data

    def state_dict(self) -> dict[str, Any]:
        return {str(i): kept for i, kept in enumerate(self._kept)}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for i, kept in enumerate(self._kept):
            kept.copy_(state[str(i)])
