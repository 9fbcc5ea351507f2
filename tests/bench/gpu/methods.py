"""What has to run on a GPU: every method, the components, and each setting that has its own path."""

from __future__ import annotations

from collections.abc import Mapping

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "hbpo": (),
    "grpo": (),
    "length-penalty": (),
    "brpo": (),
    "dapo": (),
    "htpo": (),
    "hbpo+aspo": ("method.add=[{aspo: {}}]",),
    "dapo+dot": ("method.add=[{dot: {alpha: 0.5, least: 1}}]",),
    "grpo, bfloat16": ("optimisation.precision=bfloat16",),
    "brpo, bfloat16": ("optimisation.precision=bfloat16",),
    "grpo, lora": ("lora={rank: 4}", "optimisation.learning_rate=1e-3"),
    "grpo, checkpointing": ("optimisation.gradient_checkpointing=true",),
}
"""Name → what it changes in the shipped recipe `tiny-…` that its first word names."""


def recipe_of(variant: str) -> str:
    """The shipped recipe of a variant."""
    return "tiny-" + variant.partition(",")[0].partition("+")[0]
