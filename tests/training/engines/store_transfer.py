"""vLLM's weight transfer with a TCP store where NCCL has GPUs: a CPU runs all of it but NCCL.

Importing it puts both sides into vLLM's tables under `nccl`; servers do so by `--worker-cls`.
"""

from __future__ import annotations

from typing import Any

from vllm.distributed.utils import StatelessProcessGroup
from vllm.distributed.weight_transfer import factory, nccl_engine

from ponder.training.engines.vllm import pack_vocabulary
from ponder.training.engines.vllm_worker import ReloadingWorker


def joined(info: Any, rank: int) -> StatelessProcessGroup:
    return StatelessProcessGroup.create(
        info.master_address, info.master_port, rank, info.world_size
    )


class Receiver(nccl_engine.NCCLWeightTransferEngine):  # type: ignore[misc]  # vLLM is untyped
    def init_transfer_engine(self, info: Any) -> None:
        self.group = joined(info, self.parallel_config.rank + info.rank_offset)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        for name in self.parse_update_info(update_info).names:
            self.model.load_weights([(name, self.group.broadcast_obj(None, src=0))])

    def finish_weight_update(self) -> None:
        super().finish_weight_update()
        pack_vocabulary(self.model)


class Sender(nccl_engine.NCCLTrainerWeightTransferEngine):  # type: ignore[misc]
    def _broadcast(self, source: Any, meta: Any) -> None:
        for _, tensor in self._checked_iter(source, meta):
            self.model_update_group.broadcast_obj(tensor, src=0)

    def shutdown(self) -> None:
        self.model_update_group = None


class Worker(ReloadingWorker):
    """Of a server that takes weights both ways."""


factory.WeightTransferEngineFactory._registry["nccl"] = lambda: Receiver
factory.WeightTransferTrainerFactory._registry["nccl"] = lambda: Sender
nccl_engine.open_trainer_endpoint = lambda info: joined(info, 0)
