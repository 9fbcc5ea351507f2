"""What is trained and measured: the cold start, and candidates by HBPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ponder.evaluation.protocol import Mode

COLD_START = "tiny-sft"
_HINTED = ("tiny-hbpo", "--set", "method.subgroup_sizes=[4,4,4,4]", "--set", "method.unhinted=[]")
_SHORT = ("--set", "optimisation.steps=100")
CANDIDATES: Mapping[str, Sequence[str]] = {
    "hbpo-unhinted": ("tiny-hbpo",),
    "hbpo-aspo": (*_HINTED, "--set", "method.add=[{aspo: {}}]"),
    "hbpo": (*_HINTED, *_SHORT),
    "hbpo-1e-4": (*_HINTED, *_SHORT, "--set", "optimisation.learning_rate=1e-4"),
}
"""By name: the recipe, and the flags of `ponder train`."""

MODES: Mapping[str, Sequence[Mode]] = {
    COLD_START: ("truncated", "served"),
    **dict.fromkeys(CANDIDATES, ("served",)),
}
"""By checkpoint: a plain cap (truncated), and a server's hint and cap (served)."""
