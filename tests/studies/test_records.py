"""What counts of what is recorded: tuned rates, missing runs, runs of earlier protocols."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studies.reproduction.arms import ARMS, LEARNING_RATES, Base, scored_runs, tuning_runs
from studies.reproduction.behaviour import Behaviour
from studies.reproduction.records import COLD_START, Record, Recorded, diverged, read_records
from studies.reproduction.report import write_report

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
    assert begun.missing()[0].key == trials[-1]["key"]
    done = recorded(*trials)
    assert done.rates() == dict.fromkeys(MAIN, middle)
    assert len(done.missing()) == 34 == done.total() - len(done.counted())


def test_a_rate_that_diverged_is_not_chosen() -> None:
    trials = [fakes.record(run, 0.9, 100) for run in tuning_runs(fakes.BASE)]
    for trial in trials:
        if trial["arm"] == LAST or trial["recipe"]["optimisation"]["learning_rate"] > 1e-5:
            trial["diverged"] = "the loss is nan"
    assert recorded(*trials).rates() == dict.fromkeys(MAIN - {LAST}, LEARNING_RATES[0])


def test_runs_that_the_plan_does_not_ask_for_are_listed_and_not_counted(tmp_path: Path) -> None:
    """Such as those at a rate that tuning did not choose."""
    (other,) = [run for run in scored_runs(fakes.BASE, {"htpo": 3e-4}) if run.recipe.seed == 1]
    earlier = fakes.record(other, 0.9, 50)
    records = [*fakes.trials(), *fakes.scored()[:2]]
    study = recorded(*records, earlier)
    assert study.counted() == records
    assert study.earlier() == [earlier]
    fakes.write(tmp_path / "results", [fakes.cold_start(), *records, earlier])
    assert "2 of 34" in write_report(tmp_path / "results")
    page = (tmp_path / "results.md").read_text()
    assert f"| `{other.key}` |" in page.split("## Runs of earlier versions")[1]


def test_the_records_of_protocol_3_are_read_as_they_stand() -> None:
    """They name their code by a hash of its files, and count with one another alone."""
    results = Path(__file__).parents[2] / "docs" / "results"
    records = read_records(results)
    cold = next(record for record in records if record["kind"] == COLD_START)
    base = Base(results, cold["base_sha256"], Behaviour.recorded(cold))
    counted = Recorded.of(records, cold, base).counted()
    assert len([r for r in counted if r["kind"] != "tuning" and not diverged(r)]) == 34
    assert base.behaviour.label == cold["code_sha256"][:8]
    assert not any(fakes.BASE.made(record) for record in counted)
