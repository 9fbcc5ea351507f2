"""Records of runs that never ran, with effects that the claims must find."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from studies.reproduction.arms import (
    ARMS,
    PROTOCOL_VERSION,
    Base,
    Planned,
    scored_runs,
    tuning_runs,
)
from studies.reproduction.behaviour import Behaviour
from studies.reproduction.measure import GRID, HINTS, MANY_SAMPLES, NATURAL_SAMPLES

PROBLEMS = 70
BEHAVIOUR = Behaviour({"grpo": "0" * 64}, {"grpo": [1.0, 2.0]})
BASE = Base(Path("base"), "0" * 64, BEHAVIOUR)
RUNS = sum(len(arm.seeds) for arm in ARMS)
RATES = {arm.name: 1e-4 for arm in ARMS if arm.kind == "main"}
FAMILIES = ("sum", "reasoning-gym:gcd")
LEVELS = [1 + i % 7 for i in range(PROBLEMS)]

CPU = {"gpu": None, "torch": "0"}

Record = dict[str, Any]


def measured(accuracy: float, tokens: float, seed: int, samples: int = NATURAL_SAMPLES) -> Record:
    """Accuracy falls and length rises with difficulty, around these means."""
    rng = np.random.default_rng(seed)
    level = np.array(LEVELS)
    chance = np.clip(accuracy + 0.1 * (4 - level), 0.02, 0.98)
    length = tokens * (0.4 + 0.15 * level)

    def answers(n: int, most: float) -> Record:
        return {
            "samples": n,
            "correct": rng.binomial(n, chance).tolist(),
            "tokens": np.minimum(length + rng.normal(0, 2, PROBLEMS), most).tolist(),
        }

    return {
        "natural": answers(samples, 1e9),
        "unseen": answers(8, 1e9),
        "hinted": {str(budget): answers(4, 2 * budget) for budget in HINTS},
        "anytime_samples": 4,
        "anytime": [rng.binomial(4, chance * min(1, b / 144)).tolist() for b in GRID],
    }


def cold_start() -> Record:
    return {
        "key": "cold-start",
        "kind": "cold-start",
        "arm": "cold-start",
        "protocol": PROTOCOL_VERSION,
        "seed": 0,
        "base_sha256": BASE.sha256,
        "behaviour": asdict(BEHAVIOUR),
        "finished": "2026-01-01T00:00:00+00:00",
        "machine": {"system": "x", "cores": 1, "torch": "0", "transformers": "0"},
        "problems": [
            {"id": str(i), "family": FAMILIES[i % 2], "difficulty": level}
            for i, level in enumerate(LEVELS)
        ],
        "gradient_variance": {"full": {"trace": 1.0}, "none": {"trace": 2.0}},
        "floors": [40] * PROBLEMS,
        "measured": measured(0.7, 150, 1, MANY_SAMPLES),
    }


def record(run: Planned, accuracy: float, tokens: float) -> Record:
    method, seed = run.recipe.method.method, run.recipe.seed
    made: Record = {
        "key": run.key,
        "kind": run.kind,
        "arm": run.arm.name,
        "seed": seed,
        "base_sha256": run.base.sha256,
        "behaviour": asdict(BEHAVIOUR),
        "recipe_sha256": run.sha256,
        "protocol": PROTOCOL_VERSION,
        "recipe": json.loads(run.recipe.model_dump_json()),
        "machines": [CPU] if seed else [CPU, {"gpu": "NVIDIA X", "torch": "1"}],
        "steps": [
            {
                "step": s,
                "q_rise": 0.01,
                "masked_high": 0.02,
                "sampled_tokens": 100 * tokens,
                "accuracy": accuracy * s / 80,
                "truncation_rate": 1 - s / 100,
                "zero_variance_share": 0.5,
                "thinking_tokens": tokens,
                "grad_norm": s / 80,
                **({"advantage_intra": -2 + s / 80} if method == "hbpo" else {}),
            }
            for s in range(1, 81)
        ],
        "validations": [
            {"step": s, "accuracy": accuracy, "thinking_tokens": tokens} for s in (0, 40, 80)
        ],
        "measured": measured(accuracy, tokens, 10 + seed, _samples(method)),
    }
    if run.arm.keep_checkpoints:
        correct = [int(NATURAL_SAMPLES * accuracy)] * PROBLEMS
        made["frontier"] = [
            {"correct": correct, "tokens": [tokens - 10 * k] * PROBLEMS} for k in range(8)
        ]
    return made


def _samples(method: str) -> int:
    return MANY_SAMPLES if method in ("dapo", "htpo") else NATURAL_SAMPLES


def scored(shorter: str = "hbpo") -> list[Record]:
    """Every scored run; the arms of `shorter` think half as long and are 10 points better."""
    return [
        record(run, 0.8, 75) if run.arm.name.startswith(shorter) else record(run, 0.7, 150)
        for run in scored_runs(BASE, RATES)
    ]


def trials() -> list[Record]:
    """Every tuning trial; those at the rate of `RATES` are the best."""
    return [
        record(run, 0.8 if run.recipe.optimisation.learning_rate == 1e-4 else 0.5, 150)
        for run in tuning_runs(BASE)
    ]


def write(results: Path, records: list[Record]) -> None:
    (results / "runs").mkdir(parents=True)
    for made in records:
        (results / "runs" / f"{made['key']}.json").write_text(json.dumps(made))
