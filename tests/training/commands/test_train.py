from pathlib import Path

import pytest
import yaml

from ponder.thought.contract import Contract
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


def test_an_unknown_recipe_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(recipe="huge-sft")) == 2
    assert "tiny-sft" in capsys.readouterr().err
