"""The benchmark of early ends: its choices and verdicts on answers that are known."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generators import anytime as page

from bench.anytime import __main__ as command
from bench.anytime import measure, wall
from bench.anytime.arms import FREE, Arm, cap, caps, exits, strategies
from bench.anytime.findings import (
    MARGIN,
    Compared,
    cheapest,
    compare,
    ends,
    figures,
    of_equal_tokens,
    same_thoughts,
)
from bench.anytime.rows import Answers, Row, Rows
from bench.errors import BenchError
from ponder.evaluation.intervals import Estimate
from ponder.evaluation.protocol import Ask, Reply, Subject
from ponder.server.settings import BUNDLED_MODEL
from ponder.tasks.problems import Problem

EXIT = Arm("agreement", "every 32, 2 equal")


def answers(
    right: Sequence[bool], tokens: Sequence[float], causes: Sequence[str] | None = None
) -> Answers:
    """One seed of each problem; all but an answer of eight tokens is thought."""
    tokens_PS = np.array([[float(count)] for count in tokens])
    return Answers(
        np.array([[float(it)] for it in right]),
        tokens_PS,
        tokens_PS - 8,
        np.full_like(tokens_PS, 8.0),
        np.zeros_like(tokens_PS),
        np.array([[cause] for cause in causes or ["natural"] * len(right)]),
    )


def many(accuracy: float, tokens: float, n: int = 1000) -> Answers:
    return answers([place < accuracy * n for place in range(n)], [tokens + p % 3 for p in range(n)])


def test_a_rule_as_right_for_fewer_tokens_beats_another() -> None:
    found = compare(many(0.9, 60), many(0.9, 100))
    assert found.difference.mean == 0 and found.change.mean == pytest.approx(60.999 / 100.999 - 1)
    assert found.answer.mean == 0
    assert found.verdict == "beats"


def test_few_problems_that_all_agree_prove_little() -> None:
    few = compare(many(0.9, 60, n=24), many(0.9, 100, n=24))
    assert few.difference.mean == 0 and few.difference.low < -MARGIN
    assert few.verdict == "not shown"


@pytest.mark.parametrize(
    ("difference", "change", "verdict"),
    [
        ((-0.009, 0.02), (-0.3, -0.01), "beats"),
        ((-0.011, 0.02), (-0.3, -0.01), "not shown"),  # it may be more than a point worse
        ((-0.009, 0.02), (-0.3, 0.01), "not shown"),  # it may take more
        ((-0.009, 0.02), (0.0, 0.1), "does not beat"),
        ((-0.05, -0.011), (-0.5, -0.4), "does not beat"),
        ((0.01, 0.02), (0.5, 0.6), "does not beat"),
    ],
)
def test_verdicts_are_of_intervals(
    difference: tuple[float, float], change: tuple[float, float], verdict: str
) -> None:
    spread = [Estimate(0.0, *ends) for ends in (difference, change)]
    assert Compared(*spread, answer=Estimate(0.0, 0.0, 0.0)).verdict == verdict


def test_the_cheapest_within_a_point_of_free_thought_is_taken() -> None:
    free = many(0.95, 150)
    tried = {cap(32): many(0.5, 40), cap(64): many(0.94, 70), cap(96): many(0.96, 100), FREE: free}
    assert cheapest(tried, free) == cap(64)
    del tried[cap(64)]
    assert cheapest(tried, free) == cap(96)


def test_where_no_setting_is_within_a_point_the_most_right_is_taken() -> None:
    tried = {cap(32): many(0.5, 40), cap(64): many(0.8, 90), cap(65): many(0.8, 80)}
    assert cheapest(tried, many(0.95, 150)) == cap(65)


def test_a_rule_is_compared_with_the_cap_of_as_many_tokens() -> None:
    tried = {cap(32): many(0.5, 40), cap(64): many(0.8, 70), FREE: many(0.9, 150)}
    assert of_equal_tokens(tried, many(0.7, 64)) == cap(64)  # a tenth more is as many
    assert of_equal_tokens(tried, many(0.7, 60)) == cap(32)
    assert of_equal_tokens(tried, many(0.7, 400)) == FREE
    assert of_equal_tokens(tried, many(0.7, 10)) == cap(32)
    tried[cap(64, told=False)] = many(0.6, 69)
    assert of_equal_tokens(tried, many(0.7, 64)) == cap(64)


def test_exits_are_held_against_the_same_thoughts_in_full() -> None:
    cut = answers([1, 0, 0, 1], [40, 40, 40, 90], ["agreement"] * 3 + ["natural"])
    full = answers([1, 1, 0, 1], [90, 80, 70, 90])
    found = ends(cut, full, "agreement")
    assert found is not None
    assert (found.closed, found.full_right) == (0.75, pytest.approx(2 / 3))
    assert (found.lost, found.gained) == (pytest.approx(1 / 3), 0)
    assert ends(cut, full, "entropy") is None
    assert same_thoughts(cut, full) == 1.0
    assert same_thoughts(answers([1], [91]), answers([1], [90])) == 0.0


def test_what_got_no_answer_is_wrong_and_counted() -> None:
    found = figures(answers([1, 0], [40, 0], ["deadline", "error"]))
    assert (found.accuracy.mean, found.tokens.mean, found.unanswered) == (0.5, 20, 0.5)


def test_only_intervals_that_a_thought_holds_are_tried() -> None:
    short, long = exits(100, "The answer is"), exits(5000, "The answer is")
    intervals = [
        {arm.asked["early_exit"]["interval"] for arm in of if "early_exit" in arm.asked}
        for of in (short, long)
    ]
    assert intervals == [{32, 64}, {128, 256, 512}]
    assert {arm.method for arm in exits(100, None)} == {"agreement", "deadline"}
    assert len({arm.name for arm in short}) == len(short)


def test_a_strategy_shares_what_its_thoughts_would_take_or_half_of_it() -> None:
    assert [arm.budget for arm in strategies(128, None)] == [192, 384, 192, 384]


def test_a_model_without_hints_has_no_untold_caps() -> None:
    assert [arm.method for arm in caps([64], trained=[])] == ["cap"] * 3


# -- rows --------------------------------------------------------------------------------------

PROBLEM = Problem("sum:1+1", "sum", 1, "What is 1 + 1?", "2")


def row(seed: int, *, correct: bool = True) -> Row:
    return Row("choosing", "cap 64", PROBLEM.id, seed, correct, "natural", 30, 20, 8, 0)


def test_rows_outlive_the_process_and_a_line_that_was_cut(tmp_path: Path) -> None:
    file = tmp_path / "a" / "tiny.jsonl"
    Rows(file, {"seed": 0}).add([row(0), row(1, correct=False)])
    with file.open("a") as open_:
        open_.write('["choosing", "cap 64"')
    found = Rows(file, {"seed": 0})
    assert not found.lacks("choosing", "cap 64", PROBLEM, 2)
    assert found.lacks("choosing", "cap 64", PROBLEM, 3)
    assert found.lacks("reporting", "cap 64", PROBLEM, 1)
    assert found.answers("choosing", ["cap 64"], [PROBLEM], 2).correct_PS.tolist() == [[1, 0]]
    found.add([row(2)])
    assert not Rows(file, {"seed": 0}).lacks("choosing", "cap 64", PROBLEM, 3)


def test_rows_of_another_measurement_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "tiny.jsonl"
    Rows(file, {"seed": 0})
    with pytest.raises(BenchError, match="another measurement: move it"):
        Rows(file, {"seed": 1})


# -- the whole, without an engine --------------------------------------------------------------


class Oracle:
    """Right from ten tokens per difficulty on, and never about `largest`; an exit closes a thought
    there and is billed for probes of as many tokens.
    """

    def __init__(self, known: Mapping[str, Problem], asked: Mapping[str, Any]) -> None:
        self.known, self.asked = known, asked

    async def subject(self) -> Subject:
        return Subject("oracle")

    async def answer(
        self, asks: Sequence[Ask], advance: Callable[[int], object]
    ) -> list[list[Reply]]:
        return [[self.reply(ask, budget) for budget in ask.budgets] for ask in asks]

    def reply(self, ask: Ask, budget: int) -> Reply:
        problem = self.known[ask.question]
        needed = 10 * problem.difficulty if problem.family != "largest" else 1_000
        early = self.asked.get("early_exit", {"method": "natural"})
        free = needed if early["method"] != "natural" else 100
        thought = free if budget < 0 else min(budget, free)
        probes = needed if "early_exit" in self.asked else 0
        said = problem.answer if thought >= needed else "-1"
        cause = early["method"] if thought == free else "budget"
        return Reply(f"It is {said}.", thought, cause, thought + 8 + probes, 8, probes)

    async def close(self) -> None:
        return


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Problem] = {}
    whole = measure.drawn

    def drawn(*args: Any) -> list[Problem]:
        found = whole(*args)
        known.update({problem.question: problem for problem in found})
        return found

    @asynccontextmanager
    async def responder(url: str, arm: Arm) -> AsyncGenerator[Oracle]:
        yield Oracle(known, arm.asked)

    @contextmanager
    def serving(model: Path, log: Path) -> Iterator[str]:
        yield "http://nowhere"

    async def seconds(_: Any, arm: Arm, *rest: Any) -> float:
        return 2.0 if arm == FREE else 1.0

    monkeypatch.setattr(command, "drawn", drawn)
    monkeypatch.setattr(command, "serving", serving)
    monkeypatch.setattr(measure, "_responder", responder)
    monkeypatch.setattr(wall, "wall_seconds", seconds)
    monkeypatch.setattr(measure.LocalResponder, "on_vllm", lambda _: Oracle(known, {}))


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    options = ["--n", "16", "--seeds", "2", "--tasks", "sum", "word", *more]
    files = ["--rows", str(tmp_path / "rows"), "--out", str(tmp_path / "docs" / "anytime.json")]
    monkeypatch.setattr(sys, "argv", ["anytime", *options, *files])
    assert command.main() == 0
    found: dict[str, Any] = json.loads((tmp_path / "docs" / "anytime.json").read_text())
    return found


def test_the_whole_says_what_is_true_of_an_oracle(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tmp_path, monkeypatch)
    (model,) = found["models"]
    # Problems of difficulty 7 need 70 tokens: what is cut at 80 or more is right.
    assert model["best"]["arm"] == "cap 80"
    assert model["best"]["accuracy"]["mean"] == 1
    by_method = {one["method"]: one for one in model["findings"]}
    agreement = by_method["agreement"]
    assert agreement["accuracy"]["mean"] == 1
    assert agreement["probe"] == pytest.approx(agreement["thinking"])
    assert agreement["ends"] == {"closed": 1, "full_right": 1, "lost": 0, "gained": 0}
    assert set(agreement["tasks"]) == {"sum", "word"}
    assert set(agreement["difficulties"]) == set("1234567")
    assert model["wall"]["ratios"]["cap free"]["16"] == {"median": 2, "low": 2, "high": 2}
    assert (tmp_path / "docs" / "anytime" / "tiny.svg").exists()


def test_a_run_goes_on_with_more_problems(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, monkeypatch)
    file = tmp_path / "rows" / "tiny.jsonl"
    before = file.read_text()
    found = run(tmp_path, monkeypatch, "--n", "24")
    assert file.read_text().startswith(before)
    assert found["models"][0]["problems"] == {"choosing": 24, "reporting": 48}


def test_what_is_measured_is_said_again_without_a_server(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, monkeypatch)
    monkeypatch.delattr(command, "serving")
    assert run(tmp_path, monkeypatch)["models"] == first["models"]


def test_a_task_that_the_model_does_not_know_is_left_out_by_name(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = run(tmp_path, monkeypatch, "--tasks", "sum", "word", "largest")
    (model,) = with_it["models"]
    assert model["left_out"] == {"largest": 0.0}
    assert model["problems"] == {"choosing": 16, "reporting": 32}
    (known,) = run(tmp_path, monkeypatch)["models"]
    assert {**model, "left_out": {}} == known
    lines = (tmp_path / "rows" / "tiny.jsonl").read_text().splitlines()
    about = [Row(*json.loads(line)) for line in lines[1:] if "largest" in line]
    assert about and {row.half for row in about} == {"choosing"}
    monkeypatch.setattr(page, "FOUND", tmp_path / "docs" / "anytime.json")
    (tmp_path / "docs" / "anytime.json").write_text(json.dumps(with_it))
    assert "Left out, with the share that it has right: largest 0%." in page.render()


def test_a_model_that_knows_no_task_is_refused(
    oracle: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = ["--rows", str(tmp_path), "--out", str(tmp_path / "anytime.json")]
    monkeypatch.setattr(sys, "argv", ["anytime", "--n", "8", "--tasks", "largest", *rows])
    assert command.main() == 1
    assert "fewer than one in 10 in every task: name others" in capsys.readouterr().err


def test_two_models_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(BUNDLED_MODEL)
    monkeypatch.setattr(sys, "argv", ["anytime", "--model", model, model])
    assert command.main() == 1
    assert "give their directories different ones" in capsys.readouterr().err


def test_the_page_says_it_first(
    oracle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, monkeypatch)
    monkeypatch.setattr(page, "FOUND", tmp_path / "docs" / "anytime.json")
    first, _, second, *_ = page.render().splitlines()
    assert first == "# Do early ends beat a plain cap?"
    assert second.startswith("- **Agreement ")
    assert "on tiny (every 32, 2 equal)" in second


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["beats"], "**Agreement beats a plain cap**"),
        (["beats", "not shown"], "**Agreement is not shown to beat a plain cap**"),
        (["not shown", "does not beat", "beats"], "**Agreement does not beat a plain cap**"),
    ],
)
def test_a_sentence_has_the_worst_verdict_of_all_models(verdicts: list[str], said: str) -> None:
    zero = {"mean": 0.0, "low": -0.01, "high": 0.01}
    models = [
        {
            "model": f"model-{number}",
            "best": {"arm": "cap 64"},
            "findings": [
                {
                    "method": "agreement",
                    "setting": "every 32, 2 equal",
                    "best": {"difference": zero, "change": zero, "verdict": verdict},
                    "top": {"difference": zero},
                }
            ],
        }
        for number, verdict in enumerate(verdicts)
    ]
    line = page.lines(models)["agreement"]
    assert line.startswith(said)
    assert line.count("beside a budget of 64") == len(verdicts)
