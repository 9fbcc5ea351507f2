"""Weights that are missing or damaged, in copies of the bundled checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ponder.engine.weights import WeightsError, check_weights
from ponder.server.settings import BUNDLED_MODEL

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED_MODEL, tmp_path / "model"))


def test_whole_weights_pass(model: Path) -> None:
    check_weights(model)


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_file_that_was_cut_off_is_named(model: Path, kept: int) -> None:
    file = model / WEIGHTS
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=rf"{WEIGHTS} .*: download or export the model again"):
        check_weights(model)


def test_a_page_in_place_of_weights_is_named(model: Path) -> None:
    (model / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n" * 9)
    with pytest.raises(WeightsError, match="is no file of weights"):
        check_weights(model)


def test_no_weights_are_said(model: Path) -> None:
    (model / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="has no weights"):
        check_weights(model)
    (model / "weights.gguf").touch()
    check_weights(model)


def test_a_shard_that_is_missing_is_named(model: Path) -> None:
    index = {"weight_map": {"a": WEIGHTS, "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"lacks model-00002-of-00002\.safetensors"):
        check_weights(model)
