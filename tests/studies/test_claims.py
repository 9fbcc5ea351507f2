"""Claims find effects that are there, and say so only then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from studies.reproduction import arms
from studies.reproduction.__main__ import main
from studies.reproduction.arms import ARMS, Base, tuning_runs
from studies.reproduction.claims import Claim, MeasuredArm, claims, pending, spearman
from studies.reproduction.measure import GRID, MANY_SAMPLES, NATURAL_SAMPLES
from studies.reproduction.report import write_report

from . import fakes


def arms_of(records: list[fakes.Record]) -> dict[str, MeasuredArm]:
    names = dict.fromkeys(r["arm"] for r in records)
    return {name: MeasuredArm([r for r in records if r["arm"] == name]) for name in names}


@pytest.fixture(scope="module")
def found() -> dict[str, Claim]:
    arms = arms_of(fakes.scored())
    return {c.id: c for c in claims(arms, MeasuredArm([fakes.cold_start()]), fakes.LEVELS)}


def test_all_claims_of_the_protocol_are_made(found: dict[str, Claim]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
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
        r["steps"] = [{"step": 1, "q_rise": 0.005}]
    made = claims(arms_of(records), MeasuredArm([fakes.cold_start()]), fakes.LEVELS)
    notes = {c.id: c.note for c in made}
    assert notes["htpo_hard"].endswith("uninformative")
    assert "0.500% of tokens in q-branches, 0.000% in masks" in notes["htpo_hard"]


def test_claims_wait_for_their_arms() -> None:
    arms = {k: v for k, v in arms_of(fakes.scored()).items() if k in ("hbpo", "grpo")}
    made = claims(arms, MeasuredArm([fakes.cold_start()]), fakes.LEVELS)
    assert {c.id.split("_")[0] for c in made} == {"hbpo", "effort"}
    assert pending(arms) == ["brpo", "dapo", "hbpo-1-budget", "htpo", "length-penalty"]


def test_seed_i_is_compared_with_seed_i() -> None:
    """What diverged in one arm is left out of the other."""
    missing = {("hbpo", 2), ("grpo", 3)}
    arms = arms_of([r for r in fakes.scored() if (r["arm"], r["seed"]) not in missing])
    made = {c.id: c for c in claims(arms, MeasuredArm([fakes.cold_start()]), fakes.LEVELS)}
    assert made["hbpo_vs_grpo_tokens"].seeds == 3
    assert made["hbpo_tokens"].seeds == 4
    assert made["hbpo_vs_length_penalty"].seeds == 4
    alone = {
        name: MeasuredArm([r for r in arms[name].records if r["seed"] == seed])
        for name, seed in (("hbpo", 0), ("grpo", 1))
    }
    ids = {c.id for c in claims(alone, MeasuredArm([fakes.cold_start()]), fakes.LEVELS)}
    assert "hbpo_tokens" in ids and "hbpo_vs_grpo_tokens" not in ids


def test_the_frontier_is_the_best_at_as_many_tokens_or_fewer() -> None:
    """Checkpoints that are beaten by shorter ones do not lower it."""
    records = fakes.scored()
    for r in records:
        for k, point in enumerate(r.get("frontier", ())):
            # At 75 tokens as good as HBPO, at 80 hopeless: HBPO thinks about 75.
            level = {0: 0.8, 1: 0.1}.get(k, 0.1)
            point["tokens"] = [70.0 if k == 0 else 74.0] * fakes.PROBLEMS
            point["correct"] = [NATURAL_SAMPLES * level] * fakes.PROBLEMS
    made = {
        c.id: c for c in claims(arms_of(records), MeasuredArm([fakes.cold_start()]), fakes.LEVELS)
    }
    assert abs(made["hbpo_vs_length_penalty"].value) < 5


def test_rank_correlation_shares_tied_ranks() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 30])) == pytest.approx(1)
    # Ranks 1.5, 1.5, 3, 4 against 1, 2, 3, 4: Pearson's correlation of the ranks.
    tied = spearman(np.array([5.0, 5, 6, 7]), np.array([1.0, 2, 3, 4]))
    assert tied == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3, 4])[0, 1])


def test_the_report_holds_every_claim_and_plot(tmp_path: Path) -> None:
    results = tmp_path / "results"
    fakes.write(results, [fakes.cold_start(), *fakes.trials(), *fakes.scored()])
    assert f"{fakes.RUNS} of {fakes.RUNS}" in write_report(results)
    content = json.loads((tmp_path / "results.json").read_text())
    assert len(content["claims"]) == 14
    assert not content["waiting_for"]
    page = (tmp_path / "results.md").read_text()
    first = len(ARMS)
    both = "a CPU (torch 0) and NVIDIA X (torch 1)"
    assert f"{fakes.RUNS - first} on a CPU (torch 0), {first} on {both}." in page
    assert "Seeds so far" not in page
    plots = page.split("](results/plots/")[1:]
    assert len(plots) == 6
    for name in plots:
        assert (results / "plots" / name.partition(")")[0]).exists()
    assert write_report(results) and (tmp_path / "results.md").read_text() == page


def test_the_report_says_what_is_missing(tmp_path: Path) -> None:
    assert "nothing is recorded" in write_report(tmp_path)
    fakes.write(tmp_path / "results", [fakes.cold_start(), *fakes.trials(), *fakes.scored()[:3]])
    assert f"3 of {fakes.RUNS}" in write_report(tmp_path / "results")
    page = (tmp_path / "results.md").read_text()
    assert "Seeds so far: hbpo 1 of 5, grpo 1 of 5, length-penalty 1 of 5." in page
    assert json.loads((tmp_path / "results.json").read_text())["waiting_for"]


def test_arms_are_compared_at_equal_tokens(tmp_path: Path) -> None:
    """HBPO's thoughts are half as long: the others are shown where they had sampled as much."""
    page = report_of(tmp_path / "results", fakes.scored())
    rows = {row.split(" | ")[0]: row for row in rows_of(page, "At equal sampled tokens")}
    assert rows["| hbpo"] == "| hbpo | 80 | 0.60 | 80.0 % | 75.0 |"
    assert rows["| grpo"] == "| grpo | 40 | 0.60 | 70.0 % | 150.0 |"


def test_hard_problems_are_compared_as_k_grows(tmp_path: Path) -> None:
    """Each problem is solved by half of DAPO's answers, and by all of HTPO's."""
    runs = [r for r in fakes.scored() if r["arm"] in ("dapo", "htpo")]
    for r in runs:
        r["measured"]["natural"]["correct"] = [
            MANY_SAMPLES // (1 if r["arm"] == "htpo" else 2)
        ] * fakes.PROBLEMS
    rows = rows_of(report_of(tmp_path / "results", runs), "Hard problems")
    assert rows[2] == "| dapo | 50.0 | 76.7 | 96.2 | 100.0 | 100.0 |"
    assert rows[-1] == "| htpo less dapo | +50.0 | +23.3 | +3.8 | +0.0 | +0.0 |"


def test_answers_are_split_by_family_and_by_budget(tmp_path: Path) -> None:
    """GRPO's five seeds solve every sum and no gcd, BRPO's three what their budget allows."""
    runs = fakes.scored()
    for r in runs:
        if r["arm"] == "grpo":
            r["measured"]["natural"]["correct"] = [NATURAL_SAMPLES, 0] * (fakes.PROBLEMS // 2)
            r["measured"]["natural"]["tokens"] = [10.0, 30.0] * (fakes.PROBLEMS // 2)
        if r["arm"] == "brpo":
            right = r["seed"] + 1
            r["measured"]["anytime"] = [
                [right] * fakes.PROBLEMS if b > 24 else [0] * fakes.PROBLEMS for b in GRID
            ]
    page = report_of(tmp_path / "results", runs)
    families = rows_of(page, "Families")
    assert families[0] == "| arm | gcd | sum |"
    assert "| grpo | 30, 0.0 % | 10, 100.0 % |" in families
    truncated = rows_of(page, "Truncated thoughts")
    assert truncated[0] == "| arm | 24 | 48 | 96 | 144 | 192 | 288 | 384 |"
    row = next(row for row in truncated if row.startswith("| brpo |"))
    assert row.startswith("| brpo | 0.0 (0.0–0.0) | 50.0 (25.0–75.0) | ")


def test_the_course_of_training_is_shown(tmp_path: Path) -> None:
    page = report_of(tmp_path / "results", fakes.scored())
    validations = rows_of(page, "Validations")
    assert validations[0] == "| arm | step 0 | step 40 | step 80 |"
    assert "| grpo | 150, 70.0 % | 150, 70.0 % | 150, 70.0 % |" in validations
    rollouts = rows_of(page, "Rollouts in training")
    # Steps 1 to 10 have a mean of 5.5, steps 71 to 80 of 75.5.
    hbpo = "| hbpo | 0.6 | 6 → 76 | 94 → 24 | 50 → 50 | 75 → 75 | 0.069 → 0.944 | -1.93 → -1.06 |"
    grpo = "| grpo | 1.2 | 5 → 66 | 94 → 24 | 50 → 50 | 150 → 150 | 0.069 → 0.944 |  |"
    assert [row for row in rollouts if row[2:6] in ("hbpo", "grpo")][:2] == [hbpo, grpo]


def report_of(results: Path, runs: list[fakes.Record]) -> str:
    fakes.write(results, [fakes.cold_start(), *fakes.trials(), *runs])
    write_report(results)
    return results.with_suffix(".md").read_text()


def rows_of(page: str, section: str) -> list[str]:
    lines = page.split(f"## {section}\n")[1].split("\n## ", maxsplit=1)[0].splitlines()
    return [line for line in lines if line.startswith("| ")]


def test_results_are_of_one_code_and_one_base(tmp_path: Path) -> None:
    runs = fakes.scored()
    runs[0]["behaviour"] = {"tokens": {"grpo": "another"}, "numbers": {}}
    runs[1]["base_sha256"] = "other"
    fakes.write(tmp_path, [fakes.cold_start(), *fakes.trials(), *runs])
    assert f"{fakes.RUNS - 2} of {fakes.RUNS}" in write_report(tmp_path)
    another = {"behaviour": {"tokens": {"grpo": "another"}, "numbers": {}}}
    fakes.write(tmp_path / "later", [fakes.cold_start() | another])
    assert f"0 of {fakes.RUNS}" in write_report(tmp_path / "later")
    assert "![" not in (tmp_path / "later.md").read_text()


def test_a_run_that_diverged_is_listed_and_not_scored(tmp_path: Path) -> None:
    runs = fakes.scored()
    runs[0]["diverged"] = "the loss is nan"
    fakes.write(tmp_path / "results", [fakes.cold_start(), *fakes.trials(), *runs])
    assert f"{fakes.RUNS - 1} of {fakes.RUNS}" in write_report(tmp_path / "results")
    page = (tmp_path / "results.md").read_text()
    assert f"- `{runs[0]['key']}`: the loss is nan" in page.split("## Runs that diverged")[1]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setattr(arms, "behaviour", lambda: fakes.BEHAVIOUR)
    for name in ("model.safetensors", "tokenizer.json", "ponder.json"):
        path = tmp_path / "base" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return Base.at(tmp_path / "base")


def test_a_run_that_fails_is_named(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base is no model: the first trials cannot load it."""
    results = tmp_path / "results"
    fakes.write(results, [fakes.cold_start() | {"base_sha256": base.sha256}])
    places = {"base": base.path, "results": results, "work": tmp_path / "work", "jobs": 1}
    assert main([f"--{name}={value}" for name, value in places.items()]) == 1
    said = capsys.readouterr().err
    assert f"{tuning_runs(base)[0].key} failed" in said and "resumes the others" in said
    started = (results / "started.jsonl").read_text().splitlines()
    assert json.loads(started[0])["key"] == tuning_runs(base)[0].key


def test_a_missing_cold_start_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--base={tmp_path}", f"--results={tmp_path}", f"--work={tmp_path}"]) == 2
    assert "ponder train reasoner-sft" in capsys.readouterr().err
