"""Places verl's workers on a cluster, and turns a recipe into their configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ponder.engine.tokenizer import ModelFiles

from ..run.recipe import PolicyRecipe, RecipeError

CPU = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": f"{__package__}.verl_cpu"}
"""The environment of a process in which verl trains on a CPU."""


def spread(workers: int, slots: Sequence[int]) -> list[int]:
    """Workers of each node: on as few nodes as have room, equally many on each.

    `slots` are the GPUs (or CPUs) of each node. Raises `RecipeError` where they do not suffice.

        >>> spread(8, [8, 8]), spread(16, [8, 8]), spread(4, [2, 3])
        ([8], [8, 8], [2, 2])
    """
    for nodes in range(1, len(slots) + 1):
        each, rest = divmod(workers, nodes)
        if not rest and sum(room >= each for room in slots) >= nodes:
            return [each] * nodes
    raise RecipeError(
        f"optimisation.workers = {workers}: the Ray cluster has nodes of {list(slots)} GPUs (or "
        "CPUs, where no node has a GPU), and as many workers are needed on each: change workers, "
        "or add nodes (`ray start --address=HEAD:6379`, and --num-cpus=N without GPUs)"
    )


def placed(ray: Any, workers: int | None) -> tuple[str, list[int]]:
    """The device, and the workers of each node: one per GPU, or one in all without a GPU."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = [int(node["GPU"]) for node in nodes if node.get("GPU")]
    kind, slots = ("GPU", gpus) if gpus else ("CPU", [int(node.get("CPU", 0)) for node in nodes])
    found = spread(workers or (sum(gpus) if gpus else 1), slots)
    if (free := ray.available_resources().get(kind, 0)) < sum(found):
        raise RecipeError(
            f"optimisation.workers: {sum(found)} workers need as many {kind}s, and the Ray cluster "
            f"has {free:.0f} free: end the jobs that hold the others, or name fewer workers"
        )
    return "cuda" if gpus else "cpu", found


def config(base: ModelFiles, recipe: PolicyRecipe) -> Any:
    """The configuration of verl's worker for a recipe."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import (
        FSDPEngineConfig,
        FSDPOptimizerConfig,
        HFModelConfig,
        TrainingWorkerConfig,
    )

    plan = recipe.optimisation
    attention = plan.attention or "sdpa"
    kind = "bf16" if plan.precision == "bfloat16" else "fp32"
    return TrainingWorkerConfig(
        model_type="language_model",
        model_config=HFModelConfig(
            path=base.name,
            # Without padding between rows, only flash attention keeps them apart.
            use_remove_padding=attention.startswith("flash"),
            enable_gradient_checkpointing=plan.gradient_checkpointing,
            override_config={"attn_implementation": attention},
            use_fused_kernels=_plain_head(base),
            fused_kernel_options={"impl_backend": "torch"},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2",
            model_dtype="fp32",
            mixed_precision={"param_dtype": kind, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
            use_torch_compile=False,
            seed=recipe.seed,
        ),
        optimizer_config=FSDPOptimizerConfig(
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            clip_grad=plan.clip_norm,
            lr_scheduler_type=plan.schedule,
            lr_warmup_steps=plan.warmup_updates,
            total_training_steps=plan.steps * plan.updates,
            # verl calls this module's factory; ours exempts norms and biases from weight decay.
            optimizer_impl="ponder.training.engines.optimizers",
            optimizer="of_verl",
            override_optimizer_config={"plan": plan},
        ),
        checkpoint_config=CheckpointConfig(),
    )


def _plain_head(base: ModelFiles) -> bool:
    """Whether the logits are the head's plain output, as verl's kernel assumes.

    The kernel makes logits for 512 tokens at a time. Without it verl holds a whole pass's logits
    several times over.
    """
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(base.directory).get_text_config()
    changes = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    return all(getattr(text, name, None) is None for name in changes)
