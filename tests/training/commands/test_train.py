from pathlib import Path

import pytest
import torch
import yaml

from ponder.thought.contract import Contract
from ponder.training import sft
from ponder.training.commands.train import Options, run
from ponder.training.recipe import SftRecipe


def test_train_writes_a_checkpoint(
    recipe: SftRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "own.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert run(Options(recipe=str(path), out=out, seed=8, threads=1)) == 0
    contract = Contract.load(out)
    assert contract is not None
    assert contract.seed == 8
    assert str(out) in capsys.readouterr().out


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
    assert "holds a checkpoint" in capsys.readouterr().err
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
    monkeypatch.setattr(sft, "batch_loss", lambda *_: torch.tensor(float("nan")))
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
