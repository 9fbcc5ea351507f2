"""What counts of what is recorded: tuned rates, missing runs, runs of earlier protocols."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ponder.training.run import directory
from ponder.training.run.recipe import RecipeError
from studies.reproduction import runner
from studies.reproduction.arms import ARMS, LEARNING_RATES, Base, scored_runs, tuning_runs
from studies.reproduction.records import Record, Recorded
from studies.reproduction.report import write_report
from studies.reproduction.runner import Study

from . import fakes

MAIN = {arm.name for arm in ARMS if arm.kind == "main"}
LAST = "htpo"
"""The arm whose trial at the last rate ends the tuning."""


def recorded(*records: Record) -> Recorded:
    return Recorded.of(records, fakes.cold_start(), fakes.BASE)


def test_tuning_chooses_by_the_one_score() -> None:
    tokens = float(np.mean(fakes.cold_start()["measured"]["natural"]["tokens"]))
    low, middle, _ = LEARNING_RATES
    trials = []
    for run in tuning_runs(fakes.BASE):
        rate = run.recipe.optimisation.learning_rate
        # 1 point better at the lowest; at the middle half of the tokens, which is worth 5 points.
        trial = fakes.record(run, 0.71 if rate == low else 0.70, tokens)
        trial["validations"][-1]["thinking_tokens"] = tokens / 2 if rate == middle else tokens
        trials.append(trial)
    assert trials[-1]["arm"] == LAST
    begun = recorded(*trials[:-1])
    assert begun.rates() == dict.fromkeys(MAIN - {LAST}, middle)
    left = [run for run in begun.missing() if run.kind == "tuning"]
    assert [run.key for run in left] == [trials[-1]["key"]]
    done = recorded(*trials)
    assert done.rates() == dict.fromkeys(MAIN, middle)
    assert len(done.missing()) == fakes.RUNS == done.total() - len(done.counted())


def test_a_rate_that_diverged_is_not_chosen() -> None:
    trials = [fakes.record(run, 0.9, 100) for run in tuning_runs(fakes.BASE)]
    for trial in trials:
        if trial["arm"] == LAST or trial["recipe"]["optimisation"]["learning_rate"] > 1e-5:
            trial["diverged"] = "the loss is nan"
    assert recorded(*trials).rates() == dict.fromkeys(MAIN - {LAST}, LEARNING_RATES[0])


def test_runs_that_the_plan_does_not_ask_for_are_listed_and_not_counted(tmp_path: Path) -> None:
    """Such as those at a rate that tuning did not choose."""
    (other,) = [run for run in scored_runs(fakes.BASE, {"hbpo": 3e-4}) if run.recipe.seed == 1]
    earlier = fakes.record(other, 0.9, 50)
    records = [*fakes.trials(), *fakes.scored()[:2]]
    study = recorded(*records, earlier)
    assert {r["key"] for r in study.counted()} == {r["key"] for r in records}
    assert study.earlier() == [earlier]
    fakes.write(tmp_path / "results", [fakes.cold_start(), *records, earlier])
    assert f"2 of {fakes.RUNS}" in write_report(tmp_path / "results")
    page = (tmp_path / "results.md").read_text()
    assert f"| `{other.key}` |" in page.split("## Runs of earlier versions")[1]


def test_a_run_goes_on_at_a_machine_that_rounds_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(fakes.BASE, behaviour=replace(fakes.BEHAVIOUR, numbers={"grpo": [1.00001, 2.0]}))
    assert here.behaviour.label != fakes.BEHAVIOUR.label
    monkeypatch.setattr(Base, "at", lambda _: here)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cold-start.json").write_text(json.dumps(fakes.cold_start()))
    study = Study(fakes.BASE.path, tmp_path, tmp_path)
    assert {run.key for run in study.missing()} == {run.key for run in tuning_runs(fakes.BASE)}


def test_a_run_goes_on_in_another_checkout(tmp_path: Path) -> None:
    """Its directory knows the recipe of the checkout where it began."""
    began = tuning_runs(replace(fakes.BASE, path=Path("/there/base")))[0].recipe
    here = tuning_runs(fakes.BASE)[0].recipe
    directory.record(began, tmp_path)
    with pytest.raises(RecipeError, match="another recipe"):
        directory._check_same(here, tmp_path / directory.RECIPE)
    runner._move_in(tmp_path, here.base)
    directory._check_same(here, tmp_path / directory.RECIPE)


def test_a_run_names_every_kind_of_machine_that_trained_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for gpu in (None, None, "NVIDIA H200", None):
        monkeypatch.setattr(runner, "_machine", lambda gpu=gpu: {"gpu": gpu})
        machines = runner._machines(tmp_path / "run")
    assert machines == [{"gpu": "NVIDIA H200"}, {"gpu": None}]
