"""Temporarily gathers the shards of FSDP2's and DeepSpeed's models into whole weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Gather all shards on every process, so that each may call the model any number of times.

    A forward pass of a sharded model gathers them layer by layer, and would wait for a pass that
    another process does not make. `model` is accelerate's prepared model; an unsharded model stays
    as it is.
    """
    if getattr(model, "zero_optimization_partition_weights", lambda: False)():
        with _gathered_by_deepspeed(model):
            yield
        return
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


@contextmanager
def _gathered_by_deepspeed(engine: Any) -> Iterator[None]:
    """Remove the hooks by which ZeRO-3 fetches and frees each layer while all is gathered."""
    from deepspeed import zero

    offload = engine.optimizer.parameter_offload
    parameters = list(engine.module.parameters())
    with zero.GatheredParameters(parameters):
        for parameter in parameters:
            parameter.ds_active_sub_modules.clear()
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)


def whole(parameter: Tensor) -> Tensor:
    """A parameter gathered from its shards, on every process; unchanged if it is not sharded."""
    if isinstance(parameter, DTensor):
        full: Tensor = parameter.full_tensor()
        return full.detach()
    if hasattr(parameter, "ds_id"):
        from deepspeed import zero

        with zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter.detach()


def merged(state: Mapping[str, Tensor], scaling: float) -> Iterator[tuple[str, Tensor]]:
    """The whole tensors of a PEFT model's `state`, low-rank adapters added, one at a time.

    Names are the base model's. W + scaling · B A (LoRA, arXiv 2106.09685, §4.1), as PEFT merges it.
    """
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        layer, adapted, _ = name.partition("base_layer.weight")
        full = whole(tensor)
        if adapted:
            up, down = (whole(state[f"{layer}lora_{side}.default.weight"]) for side in "BA")
            full = full + (up @ down) * scaling
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), full
