import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ponder import environment
from ponder.cli.arguments import UsageError, parse
from ponder.evaluation import command
from ponder.evaluation.bars import AnswerBar
from ponder.evaluation.command import Options, run
from ponder.evaluation.command import _problems as chosen
from ponder.evaluation.evaluate import MODES
from ponder.tasks.problems import split_of

from .measured import PROBLEMS, Oracle


def test_an_unknown_task_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(target="m", tasks=["sums"])) == 2
    assert "equation" in capsys.readouterr().err


def test_modes_are_named_with_commas() -> None:
    argv = ["m", "--modes", "natural,hinted", "--modes", "truncated"]
    assert parse(Options, argv, prog="ponder eval").modes == ["natural", "hinted", "truncated"]


def test_an_unknown_mode_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=f"no mode fast: choose of {', '.join(MODES)}"):
        parse(Options, ["m", "--modes", "natural,fast"], prog="ponder eval")


def test_budgets_below_minus_one_are_refused() -> None:
    with pytest.raises(ValidationError, match="budgets"):
        Options(target="m", budgets=[-2])


def test_results_that_could_not_be_written_are_refused_before(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="make it first"):
        Options.model_validate({"target": "m", "json": tmp_path / "nowhere" / "e.json"})
    with pytest.raises(ValidationError, match="name another file"):
        Options.model_validate({"target": "m", "json": tmp_path})
    (file := tmp_path / "file").touch()
    with pytest.raises(ValidationError, match="name another directory"):
        Options(target="m", plots=file)


def test_a_directory_without_a_model_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Options(target=str(tmp_path), n=5)) == 1
    assert "config.json" in capsys.readouterr().err


def test_too_many_problems_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(target="m", tasks=["root"], n=5000)) == 2
    assert "ask for fewer with --n, or name more --tasks" in capsys.readouterr().err
    assert run(Options(target="m", tasks=["root"], n=5000, split="test")) == 2
    assert "a tenth of listed problems, by a hash, is kept for test" in capsys.readouterr().err


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Oracle:
    oracle = Oracle()
    monkeypatch.setattr(command, "_responder", lambda _: oracle)
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
    assert "35 problems x 2 samples x 7 ways of asking = 490 answers; --n, --samples" in out.err
    text = (tmp_path / "e.json").read_text(encoding="utf-8")
    written = json.loads(text)
    assert written["settings"]["modes"] == ["natural", "truncated"]
    assert (written["settings"]["n"], written["settings"]["split"]) == (35, None)
    assert "secret" not in text
    assert len(oracle.asked) == 35 * 2


@pytest.mark.parametrize("metrics", ["", '{"loss": 1}\n', "[1]\n", '{"kind"\n'])
def test_metrics_of_another_program_cost_no_report(
    oracle: Oracle, metrics: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_text(metrics)
    options = Options(target=str(tmp_path), n=5, samples=1, plots=tmp_path / "plots")
    assert run(options) == 0
    out = capsys.readouterr()
    assert "anytime accuracy" in out.out
    assert "ponder eval: no training curves: " in out.err


def test_a_full_disk_costs_no_report(
    oracle: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(tmp_path), "--n", "5", "--samples", "1", "--json", "/dev/full"]
    assert run(parse(Options, argv, prog="ponder eval")) == 1
    out = capsys.readouterr()
    assert "anytime accuracy" in out.out
    assert "No space left" in out.err


def test_names_of_files_are_no_markup(
    oracle: Oracle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("[").mkdir()
    lines = [json.dumps({"prompt": p.question, "answer": p.answer}) for p in PROBLEMS]
    Path("[/b].jsonl").write_text("\n".join(lines))
    assert run(Options(target="m", tasks=["jsonl:[/b].jsonl"], samples=1)) == 0
    assert "jsonl:[/b].jsonl" in capsys.readouterr().out


def test_options_that_would_be_ignored_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="--budgets is for the modes truncated and served"):
        parse(Options, ["m", "--modes", "natural", "--budgets", "8"], prog="ponder eval")
    (tmp_path / "config.json").touch()
    argv = [str(tmp_path), "--model", "big", "--api-key", "secret"]
    assert run(parse(Options, argv, prog="ponder eval")) == 1
    assert "--api-key and --model: for a server's URL" in capsys.readouterr().err


def listed(path: Path, n: int) -> str:
    path.write_text("".join(f'{{"prompt": "{i}?", "answer": "{i}"}}\n' for i in range(n)))
    return f"jsonl:{path}"


def test_all_of_a_file_is_asked_unless_a_split_is(tmp_path: Path) -> None:
    task = listed(tmp_path / "mine.jsonl", 43)
    whole = chosen(Options(target="m", tasks=[task]))
    assert sorted(int(problem.answer) for problem in whole) == list(range(43))
    tested = chosen(Options(target="m", tasks=[task], split="test"))
    assert 0 < len(tested) < 15
    assert tested == [problem for problem in tested if split_of(problem) == "test"]
    assert len(chosen(Options(target="m", tasks=[task], n=20))) == 20
    large = listed(tmp_path / "large.jsonl", 600)
    assert len(chosen(Options(target="m", tasks=[large]))) == 500
    assert {split_of(p) for p in chosen(Options(target="m", n=50))} == {"test"}


def test_a_file_too_short_for_what_was_asked_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = listed(tmp_path / "mine.jsonl", 43)
    assert run(Options(target="m", tasks=[task], n=44)) == 2
    assert "only 43 different problems exist: ask for fewer with --n" in capsys.readouterr().err
    assert run(Options(target="m", tasks=[task], n=20, split="validation")) == 2
    error = capsys.readouterr().err
    assert "is kept for validation" in error and "leave --split out" in error


def test_the_server_its_key_and_its_model_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PONDER_URL", "http://host:1")
    monkeypatch.setenv("PONDER_MODEL", "tiny")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    options = parse(Options, [], prog="ponder eval")
    assert (options.target, options.model) == ("http://host:1", "tiny")
    assert options.api_key is not None and options.api_key.get_secret_value() == "secret"
    given = parse(Options, ["http://other", "--model", "big"], prog="ponder eval")
    assert (given.target, given.model) == ("http://other", "big")


def test_without_a_target_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in environment.URL:
        monkeypatch.delenv(name, raising=False)
    assert run(parse(Options, [], prog="ponder eval")) == 2
    assert "a checkpoint's directory or a server's URL" in capsys.readouterr().err


def test_the_time_left_is_said_once_after_the_first_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    with AnswerBar(1000, clock=lambda: now) as bar:
        now = 30.0  # a model loads: no part of the estimate
        for _ in range(50):
            bar.advance(2)
            now += 0.5
    said = [line for line in capsys.readouterr().err.splitlines() if "to go" in line]
    assert len(said) == 1
    assert "about 4 minutes to go, by the first 50 answers" in said[0]
