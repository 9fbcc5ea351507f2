"""`ponder calibrate`, with a responder that needs no model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from ponder.cli.arguments import parse
from ponder.evaluation import calibrate
from ponder.evaluation.calibrate import Options, run
from ponder.evaluation.calibration import PROGRESS
from ponder.evaluation.protocol import Ask, Reply, ResponderError, Subject
from ponder.server.settings import BUNDLED_MODEL
from ponder.tasks.problems import at_most
from ponder.tasks.sources import find_tasks
from ponder.thought.contract import FILE_NAME, Contract

ANSWERS = {
    problem.question: problem.answer
    for task in find_tasks(["sum", "root"])
    for problem in at_most([task], 1000, None, 0)
}


class Thinker:
    """Right from 32 tokens on; each reply costs its budget and 8 more. Fails after `patience`."""

    def __init__(self, patience: int = 10**9) -> None:
        self.patience = patience
        self.asked = 0

    async def subject(self) -> Subject:
        return Subject("thinker")

    async def answer(
        self, asks: Sequence[Ask], advance: Callable[[int], object]
    ) -> list[list[Reply]]:
        self.asked += len(asks)
        if self.asked > self.patience:
            raise ResponderError("nobody is there: start it")
        advance(sum(len(ask.budgets) for ask in asks))
        return [[self.reply(ask, budget) for budget in ask.budgets] for ask in asks]

    def reply(self, ask: Ask, budget: int) -> Reply:
        thought = 40 if budget < 0 else min(40, budget)
        said = ANSWERS[ask.question] if thought >= 32 else "-1"
        return Reply(f"The answer is {said}.", thought, "natural", thought + 8)

    async def close(self) -> None:
        return


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint without its weights, as training leaves it: without curves."""
    for name in ("config.json", FILE_NAME, "tokenizer.json"):
        shutil.copy(Path(BUNDLED_MODEL) / name, tmp_path)
    replace(contract(tmp_path), budget_curve=(), calibration=None).save(tmp_path)
    return tmp_path


def options(model: Path, **changes: object) -> Options:
    given = {"tasks": ["sum"], "n": 20, "seeds": 2, "budgets": [16, 32, -1], **changes}
    return Options.model_validate({"model": model, **given})


@pytest.fixture
def thinker(monkeypatch: pytest.MonkeyPatch) -> Thinker:
    thinker = Thinker()
    monkeypatch.setattr(calibrate, "_responder", lambda _: thinker)
    return thinker


def contract(model: Path) -> Contract:
    found = Contract.load(model)
    assert found is not None
    return found


def test_the_curve_is_written_printed_and_drawn(
    model: Path, thinker: Thinker, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contract(model)
    assert run(options(model, tasks=["sum,root"], plots=model / "plots")) == 0
    found = contract(model)
    assert found.trained_budgets == before.trained_budgets
    curves = found.curves
    assert curves is not None and found.calibration is not None
    assert list(curves.tasks) == ["sum", "root"]
    assert [point.budget for point in curves.pooled.points] == [0, 16, 32, -1]
    sums = curves.tasks["sum"]
    assert [point.accuracy for point in sums.points] == [0, 0, 1, 1]
    assert [point.tokens for point in sums.points] == [8, 24, 40, 48]
    assert (sums.auto, sums.effort("minimal"), sums.points[0].n) == (32, 32, 10)
    assert [auto.n for auto in found.calibration.auto] == [20, 10, 10]
    assert (found.calibration.seeds, found.calibration.temperature) == (2, 1.0)
    assert "ponder" in found.calibration.versions
    out = capsys.readouterr()
    assert "auto is 32, the best: on 10 other problems 100.0% for 40.0 tokens" in out.out
    assert "minimal, low, medium, high, xhigh, max, auto" in " ".join(out.out.split())
    assert "no budget by prompt: no embed_tokens.weight in" in out.out
    assert str(model / "plots" / "calibration.svg") in out.out.replace("\n", "")
    assert "40 problems x 2 seeds x 4 budgets = 320 answers" in out.err
    assert "sum: 10 problems to choose on, too few to prove a point: 276 can" in out.err
    assert not (model / PROGRESS).exists()


def test_what_a_budget_by_prompt_would_give_is_said(
    model: Path, thinker: Thinker, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(Path(BUNDLED_MODEL) / "model.safetensors", model)
    assert run(options(model, n=600, seeds=1)) == 0
    said = (
        "a budget by prompt does not pay: beside auto +0.0 points (-0.9 … +0.9) and +0 % of tokens"
    )
    assert said in " ".join(capsys.readouterr().out.split())


def test_the_same_calibration_writes_the_same_contract(model: Path, thinker: Thinker) -> None:
    written = []
    for _ in range(2):
        assert run(options(model)) == 0
        written.append((model / FILE_NAME).read_text(encoding="utf-8"))
    assert written[0] == written[1]


def test_what_was_measured_is_not_asked_again(
    model: Path, thinker: Thinker, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = options(model, n=200)
    thinker.patience = 300  # two of the four writes are whole
    assert run(whole) == 1
    assert "nobody is there: start it" in capsys.readouterr().err
    assert contract(model).curves is None
    with (model / PROGRESS).open("a", encoding="utf-8") as file:
        file.write('{"task": "sum", "prob')  # what a kill leaves
    thinker.patience, thinker.asked = 10**9, 0
    assert run(whole) == 0
    assert thinker.asked == 200 * 2 - 128 * 2
    assert "goes on after 128 problems" in capsys.readouterr().err
    resumed = (model / FILE_NAME).read_text(encoding="utf-8")
    assert run(whole) == 0
    assert (model / FILE_NAME).read_text(encoding="utf-8") == resumed


def test_another_calibration_is_not_gone_on_with(
    model: Path, thinker: Thinker, capsys: pytest.CaptureFixture[str]
) -> None:
    thinker.patience = 0
    assert run(options(model)) == 1
    capsys.readouterr()
    thinker.patience = 10**9
    for changes in ({"n": 22}, {"budgets": [16]}, {"seeds": 3}, {"seed": 1}):
        assert run(options(model, **changes)) == 1
        assert "holds another calibration" in capsys.readouterr().err
    (model / "model.safetensors").touch()  # other weights
    assert run(options(model)) == 1
    assert "or delete it" in capsys.readouterr().err


def test_other_verifiers_are_another_calibration(
    model: Path, thinker: Thinker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, thinker.patience = tmp_path / "mine.jsonl", 0
    for verifier in ("number", "exact"):
        lines = [{"prompt": q, "answer": a, "verifier": verifier} for q, a in ANSWERS.items()]
        file.write_text("\n".join(map(json.dumps, lines)))
        assert run(options(model, tasks=[f"jsonl:{file}"])) == 1
    assert "holds another calibration" in capsys.readouterr().err


def test_figures_that_could_not_be_drawn_are_refused_before(model: Path) -> None:
    (model / "file").touch()
    with pytest.raises(ValidationError, match="name another directory"):
        options(model, plots=model / "file")


def test_a_dry_run_says_what_would_be_asked(
    model: Path, thinker: Thinker, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(model.iterdir())
    assert run(options(model, dry_run=True, n=600)) == 0
    assert "600 problems x 2 seeds x 4 budgets = 4,800 answers" in capsys.readouterr().err
    assert (thinker.asked, sorted(model.iterdir())) == (0, before)


def test_budgets_that_the_context_cannot_hold_are_left_out(model: Path, thinker: Thinker) -> None:
    (model / "config.json").write_text('{"max_position_embeddings": 32}')
    assert run(options(model)) == 0
    curves = contract(model).curves
    assert curves is not None
    assert [point.budget for point in curves.pooled.points] == [0, 16, -1]


def test_a_source_may_have_a_label(model: Path, thinker: Thinker, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = [{"prompt": q, "answer": a} for q, a in list(ANSWERS.items())[:8]]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert run(options(model, tasks=[f"support=jsonl:{file}"])) == 0
    curves = contract(model).curves
    assert curves is not None and list(curves.tasks) == ["support"]


def test_a_set_too_small_is_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text('{"prompt": "1?", "answer": "1"}\n')
    assert run(options(model, tasks=[f"few=jsonl:{file}"])) == 2
    assert "few has 1 problems, and 4 are the least" in capsys.readouterr().err


def test_what_cannot_be_calibrated_says_what_to_do(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(options(model, tasks=["poems"])) == 2
    assert "equation" in capsys.readouterr().err
    (model / FILE_NAME).unlink()
    assert run(options(model)) == 1
    assert f"`ponder contract {model} --write` begins one" in capsys.readouterr().err
    (model / "config.json").unlink()
    assert run(options(model)) == 1
    assert "is no model directory with a config.json" in capsys.readouterr().err


def test_options_are_read_from_a_command_line() -> None:
    argv = ["m", "--tasks", "sum,mine=jsonl:a.jsonl", "--budgets", "-1,8", "--n", "40"]
    found = parse(Options, argv, prog="ponder calibrate")
    assert (found.tasks, found.budgets) == (["sum", "mine=jsonl:a.jsonl"], [-1, 8])
    with pytest.raises(ValidationError):
        Options(model=Path("m"), n=3)
