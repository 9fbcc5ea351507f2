import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ponder.cli.arguments import parse
from ponder.cli.main import main
from ponder.thought.contract import Contract
from ponder.training.coldstart import sft
from ponder.training.command import Options, _say_how_to_go_on, run
from ponder.training.run import installed
from ponder.training.run.recipe import SftRecipe
from ponder.training.run.shipped import listed
from training.policy import TINY

BASE = {"tiny-sft": None, "tiny-hbpo": str(TINY)}


def test_train_writes_a_checkpoint(
    recipe: SftRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "own.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert run(Options(recipe=str(path), out=out, seed=8, threads=1)) == 0
    contract = Contract.load(out)
    assert contract is not None
    assert contract.seed == 8
    said = capsys.readouterr().out
    assert "loss: " in said and "validation: " in said
    assert f"ponder serve {out}\n" in said


def test_an_out_that_cannot_be_written_is_said_before_training(
    recipe: SftRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "own.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    out.write_text("a file")
    assert run(Options(recipe=str(path), out=out)) == 2
    assert "--out" in capsys.readouterr().err
    assert out.read_text() == "a file"


def test_a_checkpoint_is_not_overwritten(
    recipe: SftRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, held = tmp_path / "own.yaml", tmp_path / "out" / "ponder.json"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    held.parent.mkdir()
    held.write_text("{}")
    assert run(Options(recipe=str(path), out=held.parent)) == 2
    assert "holds a checkpoint of another run" in capsys.readouterr().err
    assert run(Options(recipe="tiny-hbpo", base=str(held.parent), out=held.parent)) == 2
    assert "is the base" in capsys.readouterr().err
    assert run(Options(recipe="tiny-hbpo", base="another", out=held.parent)) == 2
    assert "another run" in capsys.readouterr().err
    assert held.read_text() == "{}"


def test_a_cold_start_that_diverges_leaves_nothing(
    recipe: SftRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    monkeypatch.setattr(sft, "written_loss", lambda *_: torch.tensor(float("nan")))
    assert run(Options(recipe=str(path), out=tmp_path / "out")) == 1
    assert "the loss is nan at step 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_no_text_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"name: \xff")
    assert run(Options(recipe=str(path))) == 2
    assert "not YAML" in capsys.readouterr().err


def test_an_unknown_recipe_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(recipe="huge-sft")) == 2
    assert "tiny-sft" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(recipe="nofile.yaml")) == 2
    assert "nofile.yaml: no such file" in capsys.readouterr().err


def test_the_recipes_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse(Options, ["--list"], prog="ponder train")) == 0
    said = capsys.readouterr().out
    assert all(line in said for line in listed().splitlines())
    assert run(Options()) == 2
    assert "name a recipe" in (error := capsys.readouterr().err) and "tiny-hbpo" in error
    assert main(["train", "--help"]) == 0
    assert "HBPO on the tiny reasoner" in capsys.readouterr().out


def test_what_is_set_is_recorded(recipe: SftRecipe, tmp_path: Path) -> None:
    path, out = tmp_path / "own.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    argv = [str(path), "--out", str(out), "--threads", "1", "--set", "optimisation.steps=2"]
    argv += ["--set", "traces.budgets=[40, 80]"]
    assert run(parse(Options, argv, prog="ponder train")) == 0
    recorded = SftRecipe.model_validate_json((out / "recipe.json").read_text())
    assert recorded.optimisation.steps == 2
    contract = Contract.load(out)
    assert contract is not None and contract.trained_budgets == (40, 80)


def test_resuming_nothing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tiny-sft", "tiny-hbpo"):
        nope = tmp_path / "nope"
        assert run(Options(recipe=name, base=BASE[name], out=nope, resume=True)) == 2
        assert f"--resume: no run in {nope}" in capsys.readouterr().err
        assert not nope.exists()


def test_what_is_not_installed_is_said_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name == "accelerate" else name)
    argv = ["train", "tiny-hbpo", "--base", str(BASE["tiny-hbpo"]), "--out", str(tmp_path / "out")]
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert "needs accelerate, which is missing: pip install 'ponder[train]', or make train" in said
    assert not (tmp_path / "out").exists()


def test_what_goes_on_ends_and_is_pushed_as_it_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints" / "checkpoint-4").mkdir(parents=True)
    asked: dict[str, Any] = {"recipe": "tiny-sft", "for": 90.5, "push": "me/mine"}
    _say_how_to_go_on(tmp_path, Options(**asked))
    assert "--resume --for 90.5 --push me/mine\n" in capsys.readouterr().err


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def fill_the_disk() -> None:
    torch.save(torch.zeros(100_000), "/dev/full")


STOPS = {"ctrl-c": (press_ctrl_c, 130), "full disk": (fill_the_disk, 1)}


@pytest.mark.parametrize("cause", STOPS)
def test_a_run_that_is_stopped_says_how_to_go_on(
    cause: str,
    recipe: SftRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = tmp_path / "my own.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    learn = sft.written_loss
    stop, status = STOPS[cause]
    good = 0

    def interrupted(*given: Any) -> torch.Tensor:
        nonlocal good
        if good == 0:
            stop()
        good -= 1
        return learn(*given)

    argv = ["train", str(path), "--out", str(out), "--threads", "1", "--seed", "4"]
    argv += ["--set", "checkpoints.every=1"]
    with monkeypatch.context() as patch:
        patch.setattr(sft, "written_loss", interrupted)
        assert main(argv) == status
        assert "no checkpoint yet" in capsys.readouterr().err
        good = 2
        assert main(argv) == status
    error = capsys.readouterr().err
    assert ("is its disk full?" in error) == (cause == "full disk")
    assert "this continues from checkpoint-2" in error
    words = shlex.split(error.strip().splitlines()[-1])
    assert words[0] == "ponder"
    assert main(words[1:]) == 0
    assert (out / "model.safetensors").exists()
