"""The components that ship, in runs of real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ponder.training.command import Options
from ponder.training.command import run as command
from training.policy import metrics, raw_recipe, recipe, train, write_recipe

ASPO: dict[str, Any] = {"aspo": {"k": 0.9}}
DOT: dict[str, Any] = {"dot": {"alpha": 0.5, "least": 1}}


@pytest.mark.parametrize("method", ["hbpo", "brpo"])
def test_aspo_on_methods_of_their_own_advantage(method: str, tmp_path: Path) -> None:
    train(recipe(tmp_path, method, method={"add": [ASPO]}), tmp_path / "out")
    lines = metrics(tmp_path / "out", "step")
    assert len(lines) == 2 and any(line["advantage_length"] != 0 for line in lines)


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
