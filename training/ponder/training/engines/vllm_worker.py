"""vLLM's worker on a CPU, for servers that are to take new weights while they run.

    vllm serve MODEL --worker-cls ponder.training.engines.vllm_worker.ReloadingWorker …

Its kernels pack the model's head when it is loaded; a reload passes over that, and the server would
go on with the old head. A GPU's worker packs nothing and needs no other class.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from .vllm import pack_vocabulary


class ReloadingWorker(CPUWorker):  # type: ignore[misc]  # vLLM is untyped
    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        super().reload_weights(*args, **kwargs)
        pack_vocabulary(self.get_model())
