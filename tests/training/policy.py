"""Reinforcement learning at its smallest: the bundled checkpoint, two steps of four problems."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from ponder.tasks.workers import VerifierPool
from ponder.training.run.recipe import PolicyRecipe, load_recipe
from ponder.training.run.run import Run

TINY = Path(__file__).parents[2] / "studies" / "bundled" / "hinted"
"""A checkpoint of the bundled size that thinks long: its rollouts differ."""

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"longest": 160},
    "dapo": {"longest": 160, "generation_batches": 2},
    "hbpo": {"longest": 160, "budgets": [20, 40, 80, 100], "count_hint": False},
    "length-penalty": {"longest": 160},
    "brpo": {"budgets": [40, 80, 120, 160], "summaries": 2, "summary_tokens": 8},
    "htpo": {"longest": 160, "generation_batches": 2},
}

# What every line of a step in metrics.jsonl holds.
MEASURED = {
    "reward", "accuracy", "thinking_tokens", "zero_variance_share", "truncation_rate", "entropy",
    "clipped_low", "clipped_high", "generation_batches", "loss", "grad_norm", "learning_rate",
    "sampled_tokens", "learnt_tokens", "unjudged_answers",
}  # fmt: skip


def raw_recipe(method: str, /, **sections: Any) -> dict[str, Any]:
    """A recipe as its YAML says it; sections are merged into the defaults here."""
    raw: dict[str, Any] = {
        "name": f"small-{method}",
        "seed": 3,
        "base": str(TINY),
        "tasks": ["tiny"],
        "method": {"method": method, "group_size": 4, **METHODS[method]},
        "rollouts": {"prompts": 4},
        "optimisation": {"steps": 2, "updates": 2, "micro_batches": 2, "learning_rate": 1e-4},
        "validation": {"every": 2, "problems": 4},
        "checkpoints": {"every": 1},
    }
    for name, change in sections.items():
        merge = isinstance(raw.get(name), dict) and isinstance(change, dict)
        raw[name] = {**raw[name], **change} if merge else change
    return raw


def write_recipe(path: Path, raw: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(raw))
    return path


def recipe(path: Path, method: str, /, **sections: Any) -> PolicyRecipe:
    loaded = load_recipe(write_recipe(path / "own.yaml", raw_recipe(method, **sections)))
    assert isinstance(loaded, PolicyRecipe)
    return loaded


def train(own: PolicyRecipe, out: Path, resume: bool = False) -> Run:
    with VerifierPool(1) as pool:
        run = Run(own, out, pool.judge, resume)
        run.train(progress=False)
    return run


def metrics(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without what a clock says."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith("seconds")}
        for line in lines
        if kind in (None, line["kind"])
    ]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name].float() - b[name].float()).abs().max().item() for name in a)


def quiet() -> dict[str, str]:
    """The environment of a process that trains on one thread, offline."""
    rooms = os.pathsep.join(
        str(Path(__file__).parents[2] / f) for f in ("server", "training", "clients")
    )
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": rooms}
