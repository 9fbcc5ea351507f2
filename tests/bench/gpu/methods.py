"""What has to run on a GPU: every method, the components, each setting with a path of its own."""

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
    "hbpo+components": ("method.add=[{adora: {}}, {progrpo: {}}, {d3s: {}}, {t1: {beta: 0.1}}]",),
    "dapo+components": ("method.add=[{treepo: {segment: 64}}, {v0: {warmup: 4}}, {lite_ppo: {}}]",),
    "grpo+components": ("method.add=[{a2fm: {}}, {riskpo: {bundle: 2}}]",),
    "hbpo+tppo": ("method.add=[{tppo: {window: 128}}]",),
    "grpo, bfloat16": ("optimisation.precision=bfloat16",),
    "brpo, bfloat16": ("optimisation.precision=bfloat16",),
    "grpo, lora": ("lora={rank: 4}", "optimisation.learning_rate=1e-3"),
    "grpo, checkpointing": ("optimisation.gradient_checkpointing=true",),
}
"""Name → what it changes in the shipped recipe `tiny-…` that its first word names."""


def recipe_of(variant: str) -> str:
    """The shipped recipe of a variant."""
    return "tiny-" + variant.partition(",")[0].partition("+")[0]
