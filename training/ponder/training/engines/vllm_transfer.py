"""The trainer's side of vLLM's weight transfer by NCCL (`publishing.Transferred`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

from .protocol import Weights

if TYPE_CHECKING:
    from .publishing import Servers


class Source(WeightSource):  # type: ignore[misc]  # vLLM is untyped
    """Weights in bfloat16, of what `weights` is when a transfer begins; `known` does not change."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._known = [ParamMeta(n, torch.bfloat16, tuple(w.shape)) for n, w in weights()]

    def metadata(self) -> Sequence[Any]:
        return self._known

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, weight.to(torch.bfloat16)) for name, weight in self.weights())


def join(servers: Servers, source: Source, address: tuple[str, int], rank: int) -> Any:
    """vLLM's engine that sends `source`, once all servers have joined the group at `address`.

    Every process of the trainer calls it; the first one is rank 0 of the group and sends.
    """
    world = 1 + sum(servers.worlds()) if rank == 0 else 1
    return WeightTransferTrainerFactory.trainer_init(
        NCCLTrainerInitInfo(*address, world, rank=rank), client=servers, source=source
    )
