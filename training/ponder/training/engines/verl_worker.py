"""The code of each verl process on Ray: verl's `TrainingWorker` with a loss of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.workers.engine_workers import TrainingWorker

from ..method.kernel import Objective, aggregate
from ..rollout.rows import loss_inputs
from .correction import DRAWN, corrected


class Worker(TrainingWorker):  # type: ignore[misc]  # verl is not installed beside mypy
    """verl's worker, which also runs on a CPU and hands out its weights."""

    def __init__(self, config: Any) -> None:
        if get_device_name() == "cpu":
            from .verl_cpu import register_engine

            register_engine()
            # verl would ask for a backend of "cpu:gloo,cpu:gloo", which torch refuses.
            torch.distributed.init_process_group("gloo")
        super().__init__(config)
        self._weights: Iterator[tuple[str, torch.Tensor]] = iter(())

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def begin_weights(self) -> None:
        """Make `next_weights` begin with the first tensor."""
        self._weights, _ = self.engine.get_per_tensor_param()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def next_weights(self, tensors: int) -> dict[str, torch.Tensor] | None:
        """The next whole tensors, by transformers' names; None from all processes but the first.

        Every process must call it, because all contribute their shards of each tensor.
        """
        found = {}
        for name, tensor in islice(self._weights, tensors):
            if self.rank == 0:
                found[name] = tensor.detach().cpu().clone()
        return found if self.rank == 0 else None


def loss(
    objective: Objective,
    cap: float | None,
    model_output: Mapping[str, Any],
    data: Any,
    dp_group: Any = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """-Σ objective / denominator over a micro-batch, and sums for the logs.

    `cap` is `rollouts.sampler_cap`, and `data` has the `denominator` of all rows of the update.
    verl takes the mean of the processes' gradients; multiplying by `dp_size` makes it the sum.
    verl's outputs on a token's successor stand at the token's place, as in `rollout.rows.collate`.
    """
    log_probs_BT = _padded(model_output["log_probs"])
    entropies_BT = _padded(model_output["entropy"]).detach()
    batch = {
        name: _padded(value) if value.is_nested else value
        for name, value in data.items()
        if isinstance(value, torch.Tensor) and name not in ("input_ids", "position_ids")
    }
    mask_BT = batch["loss_mask"]
    rows = loss_inputs(batch, log_probs_BT, entropies_BT)
    found = corrected(objective(rows), rows, batch.get(DRAWN), cap)
    divisor = tu.get_non_tensor_data(data, "denominator", None) / tu.get_non_tensor_data(
        data, "dp_size", 1
    )
    stats = {**found.stats, "entropy": (entropies_BT * mask_BT).sum()}
    sums = {name: float(value) for name, value in stats.items()}
    return -aggregate(found.per_token_BT, mask_BT, divisor), sums


def _padded(nested: Any) -> torch.Tensor:
    """Ragged rows as (B, W-1), without the last place, because no token follows a row's last one.

    The width comes from the rows, because a part of a batch keeps the width of the whole batch.
    """
    width = int(nested.offsets().diff().max())
    padded_BW: torch.Tensor = torch.nested.to_padded_tensor(
        nested, 0.0, output_size=(len(nested), width)
    )
    return padded_BW[:, :-1]
