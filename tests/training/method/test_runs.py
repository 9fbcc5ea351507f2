"""The components that ship, in runs of real models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ponder.evaluation import plots
from ponder.training.command import Options
from ponder.training.command import run as command
from ponder.training.method.components import COMPONENTS
from training.policy import (
    TINY,
    furthest,
    metrics,
    raw_recipe,
    recipe,
    train,
    weights,
    write_recipe,
)

ASPO: dict[str, Any] = {"aspo": {"k": 0.9}}
DOT: dict[str, Any] = {"dot": {"alpha": 0.5, "least": 1}}


@pytest.mark.parametrize("method", ["hbpo", "brpo"])
def test_aspo_on_methods_of_their_own_advantage(method: str, tmp_path: Path) -> None:
    train(recipe(tmp_path, method, method={"add": [ASPO]}), tmp_path / "out")
    lines = metrics(tmp_path / "out", "step")
    assert len(lines) == 2 and any(line["advantage_length"] != 0 for line in lines)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here."""
    monkeypatch.setattr(plots, "plot_training", lambda *_: None)


SMALL: dict[str, Any] = {
    "rollouts": {"prompts": 2},
    "optimisation": {"updates": 1},
    "validation": {"every": 2, "problems": 1},
}
# What fits together in one run: each component once, on a method where it makes sense.
TOGETHER: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "hbpo": (
        "hbpo",
        [
            {"adora": {"favour": "shorter"}},
            {"progrpo": {}},
            {"d3s": {}},
            {"t1": {"beta": 0.1, "answer_tokens": 6}},
        ],
    ),
    "windows": ("hbpo", [{"tppo": {"window": 48}}]),
    "bundles": (
        "grpo",
        [{"riskpo": {"bundle": 2}}, ASPO, {"a2fm": {"instant": 1, "thinking": 1}}],
    ),
    "batch": (
        "dapo",
        [
            DOT,
            {"lite_ppo": {}},
            {"v0": {"warmup": 2, "history": 8}},
            {"treepo": {"segment": 24}},
        ],
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    method, add = TOGETHER[name]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    brief = {"longest": 64, **({"budgets": [8, 16, 24, 32]} if method == "hbpo" else {})}
    own = recipe(tmp_path, method, method={**brief, "add": add}, **SMALL)
    train(own, whole)
    assert furthest(weights(whole), weights(TINY)) > 0 and did_something(name, whole)
    shutil.copytree(whole / "checkpoints" / "checkpoint-1", stopped / "checkpoints/checkpoint-1")
    for file in ("recipe.json", "metrics.jsonl"):
        shutil.copy(whole / file, stopped)
    train(own, stopped, resume=True)
    assert furthest(weights(whole), weights(stopped)) == 0
    assert metrics(whole) == metrics(stopped)
    states = [
        (out / "checkpoints/checkpoint-2/method.json").read_text() for out in (whole, stopped)
    ]
    assert states[0] == states[1]


def did_something(name: str, out: Path) -> bool:
    """What a run of these components must show beside the weights."""
    first, second = metrics(out, "step")
    kept = json.loads((out / "checkpoints" / "checkpoint-1" / "method.json").read_text())
    match name:
        case "hbpo":
            said = second["anchor_kl"] > 0 and "probe_accuracy_50" in second
            return said and first["advantage_confidence"] != 0
        case "windows":
            return bool(kept["tppo"]) and first["learnt_tokens"] < second["learnt_tokens"]
        case "bundles":
            return len(kept["riskpo"]) == 2
        case _:
            return len(kept["v0"]) >= 2


def test_every_component_has_a_run() -> None:
    run = {name for _, add in TOGETHER.values() for it in add for name in it}
    assert run == set(COMPONENTS)


def test_dot_leaves_dapo_more_to_learn_from(tmp_path: Path) -> None:
    plain, dotted = ({}, {"add": [DOT]})
    for name, method in (("plain", plain), ("dotted", dotted)):
        (tmp_path / name).mkdir()
        train(recipe(tmp_path / name, "dapo", method=method), tmp_path / name / "out")
    before, after = (metrics(tmp_path / name / "out", "step")[0] for name in ("plain", "dotted"))
    assert after["truncation_rate"] > before["truncation_rate"]
    assert after["accuracy"] < before["accuracy"]
    assert after["zero_variance_share"] < before["zero_variance_share"]


def test_a_run_says_at_its_start_that_dot_cannot_fire(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = raw_recipe("grpo", method={"add": [{"dot": {}}]}, optimisation={"steps": 1})
    path = write_recipe(tmp_path / "own.yaml", raw)
    assert command(Options(recipe=str(path), out=tmp_path / "out", threads=1)) == 0
    assert "note: dot cuts nothing: of 4 lengths" in capsys.readouterr().err
