"""Claims find effects that are there, and say so only then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponder.training.study.arms import code_sha256, tuning_runs
from ponder.training.study.claims import Arm, Claim, claims, pending, spearman
from ponder.training.study.report import write_report
from ponder.training.study.runner import COLD_START, Study

from . import fakes


def arms_of(records: list[fakes.Record]) -> dict[str, Arm]:
    names = dict.fromkeys(r["arm"] for r in records)
    return {name: Arm([r for r in records if r["arm"] == name]) for name in names}


@pytest.fixture(scope="module")
def found() -> dict[str, Claim]:
    arms = arms_of(fakes.scored())
    return {c.id: c for c in claims(arms, Arm([fakes.cold_start()]), fakes.LEVELS)}


def test_all_claims_of_the_protocol_are_made(found: dict[str, Claim]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    listed = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert set(found) == listed


def test_an_effect_is_found_with_its_size(found: dict[str, Claim]) -> None:
    tokens = found["hbpo_tokens"]
    assert tokens.value == pytest.approx(-50, abs=2)
    assert tokens.direction_holds and not tokens.magnitude_holds
    assert found["hbpo_accuracy"].value == pytest.approx(10, abs=3)
    assert found["hbpo_accuracy"].direction_holds
    assert found["hbpo_vs_grpo_tokens"].direction_holds
    assert found["hbpo_vs_length_penalty"].direction_holds
    assert (tokens.seeds, tokens.n) == (5, fakes.PROBLEMS)


def test_what_is_not_there_is_not_found(found: dict[str, Claim]) -> None:
    for name in ("brpo_anytime", "brpo_final", "htpo_hard", "hbpo_budget_count"):
        assert not found[name].direction_holds, name
    assert abs(found["effort_correlation"].value) < 0.05


def test_htpo_that_touched_nothing_is_uninformative() -> None:
    records = fakes.scored()
    for r in records:
        r["steps"] = [{"step": 1, "q_rise": 0.0005}]
    made = claims(arms_of(records), Arm([fakes.cold_start()]), fakes.LEVELS)
    notes = {c.id: c.note for c in made}
    assert notes["htpo_hard"].endswith("uninformative")
    assert "0.05%" in notes["htpo_hard"]


def test_claims_wait_for_their_arms() -> None:
    arms = {k: v for k, v in arms_of(fakes.scored()).items() if k in ("hbpo", "grpo")}
    made = claims(arms, Arm([fakes.cold_start()]), fakes.LEVELS)
    assert {c.id.split("_")[0] for c in made} == {"hbpo", "effort"}
    assert pending(arms) == ["brpo", "dapo", "hbpo-1-budget", "htpo", "length-penalty"]


def test_rank_correlation_shares_tied_ranks() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 30])) == pytest.approx(1)
    # Ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4: Pearson's correlation of the ranks.
    tied = spearman(np.array([5.0, 5, 6, 7]), np.array([1.0, 2, 3, 4]))
    assert tied == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1])


def test_the_report_holds_every_claim_and_plot(tmp_path: Path) -> None:
    fakes.write(tmp_path, [fakes.cold_start(), *fakes.scored()])
    assert "33 of 33" in write_report(tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["claims"]) == 13
    assert not content["waiting_for"]
    page = (tmp_path / "results.md").read_text()
    for name in page.split("](plots/")[1:]:
        assert (tmp_path / "plots" / name.partition(")")[0]).exists()
    assert write_report(tmp_path) and (tmp_path / "results.md").read_text() == page


def test_the_report_says_what_is_missing(tmp_path: Path) -> None:
    assert "nothing is recorded" in write_report(tmp_path)
    fakes.write(tmp_path, [fakes.cold_start(), *fakes.scored()[:3]])
    assert "3 of 33" in write_report(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["waiting_for"]


def test_tuning_chooses_by_the_one_score(tmp_path: Path) -> None:
    base = tmp_path / "base"
    cold = fakes.cold_start() | {"key": f"{COLD_START}-{code_sha256()[:8]}"}
    tokens = float(np.mean(cold["measured"]["natural"]["tokens"]))
    trials = []
    for run in tuning_runs(str(base)):
        rate = run.recipe.optimisation.learning_rate
        # 1 point better at 3e-5; at 1e-4 a half of the tokens, which is worth 5 points.
        trial = fakes.record(run, 0.71 if rate == 3e-5 else 0.70, tokens)
        trial["validations"][-1]["thinking_tokens"] = tokens / 2 if rate == 1e-4 else tokens
        trials.append(trial)
    results = tmp_path / "results"
    fakes.write(results, [cold, *trials[:-1]])
    study = Study(base, results, tmp_path / "work")
    assert study.rates() == dict.fromkeys(("grpo", "hbpo", "brpo", "length-penalty", "dapo"), 1e-4)
    assert [run.key for run in study.missing() if run.kind == "tuning"] == [trials[-1]["key"]]
    (results / "runs" / f"{trials[-1]['key']}.json").write_text(json.dumps(trials[-1]))
    assert set(study.rates()) == {run.arm.name for run in tuning_runs(str(base))}
    assert len(study.missing()) == 33
