import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ponder.cli.arguments import UsageError, parse
from ponder.training.commands import evaluate
from ponder.training.commands.evaluate import Options, run
from ponder.training.evaluation import MODES

from ..measured import Oracle


def test_an_unknown_task_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(model="m", tasks=["sums"])) == 2
    assert "equation" in capsys.readouterr().err


def test_modes_are_named_with_commas() -> None:
    argv = ["m", "--modes", "natural,hinted", "--modes", "truncated"]
    assert parse(Options, argv, prog="ponder eval").modes == ["natural", "hinted", "truncated"]


def test_an_unknown_mode_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=f"no mode fast: choose of {', '.join(MODES)}"):
        parse(Options, ["m", "--modes", "natural,fast"], prog="ponder eval")


def test_budgets_below_minus_one_are_refused() -> None:
    with pytest.raises(ValidationError, match="budgets"):
        Options(model="m", budgets=[-2])


def test_results_that_could_not_be_written_are_refused_before(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="make it first"):
        Options.model_validate({"model": "m", "json": tmp_path / "nowhere" / "e.json"})
    with pytest.raises(ValidationError, match="name another file"):
        Options.model_validate({"model": "m", "json": tmp_path})
    (file := tmp_path / "file").touch()
    with pytest.raises(ValidationError, match="name another directory"):
        Options(model="m", plots=file)


def test_a_directory_without_a_model_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Options(model=str(tmp_path), n=5)) == 1
    assert "config.json" in capsys.readouterr().err


def test_too_many_problems_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(model="m", tasks=["root"], n=5000)) == 2
    assert "ask for fewer" in capsys.readouterr().err


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    oracle = Oracle()
    monkeypatch.setattr(evaluate, "_responder", lambda _: oracle)
    return oracle


def test_everything_is_printed_written_and_drawn(
    oracle: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "metrics.jsonl").write_text('{"kind": "step", "step": 1, "reward": 0.5}\n')
    argv = [str(tmp_path / "m"), "--modes", "natural,truncated", "--n", "35", "--samples", "2"]
    argv += ["--json", str(tmp_path / "e.json"), "--plots", str(tmp_path / "plots")]
    argv += ["--api-key", "secret"]
    assert run(parse(Options, argv, prog="ponder eval")) == 0
    out = capsys.readouterr()
    assert "anytime accuracy" in out.out
    for name in ("anytime.svg", "training.png"):
        assert str(tmp_path / "plots" / name) in out.out
    assert f"{35 * 2 * 7}/{35 * 2 * 7}" in out.err  # natural and free share their answers
    text = (tmp_path / "e.json").read_text(encoding="utf-8")
    written = json.loads(text)
    assert written["settings"]["modes"] == ["natural", "truncated"]
    assert written["settings"]["split"] == "test"
    assert "secret" not in text
    assert len(oracle.asked) == 35 * 2


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    key = Options(model="m").api_key
    assert key is not None and key.get_secret_value() == "secret"
