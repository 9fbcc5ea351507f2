"""Which engine a recipe names, and what each refuses before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.tokenizer import ModelFiles
from ponder.training.engines.table import ENGINES, engine_of
from ponder.training.engines.verl import VerlEngine
from ponder.training.engines.verl_cluster import spread
from ponder.training.run.recipe import RecipeError
from training.policy import TINY, recipe


@pytest.mark.parametrize("name", ENGINES)
def test_every_row_is_an_engine_that_takes_a_plain_recipe(name: str, tmp_path: Path) -> None:
    engine_of(name).check(recipe(tmp_path, "hbpo"), 1)


def test_an_engine_of_ones_own_is_named_by_its_place() -> None:
    assert engine_of("ponder.training.engines.verl:VerlEngine") is VerlEngine


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deepspeed", "name one of accelerate, verl, or package.module:Name"),
        ("nowhere.at:All", "No module named 'nowhere'"),
    ],
)
def test_an_unknown_engine_is_refused(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        engine_of(name)


@pytest.mark.parametrize(
    ("sections", "launched", "said"),
    [
        ({"lora": {"rank": 4, "alpha": 8}}, 1, "lora"),
        ({"optimisation": {"schedule": "linear"}}, 1, "schedule = linear"),
        ({"rollouts": {"engine": "vllm"}}, 1, "engine = vllm"),
        ({}, 2, "torchrun"),
    ],
)
def test_verl_refuses_what_it_does_not_do(
    sections: dict[str, Any], launched: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=f"{said}.*engine = accelerate"):
        VerlEngine.check(recipe(tmp_path, "hbpo", **sections), launched)


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed here")
def test_without_verl_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="make setup-verl"):
        VerlEngine(ModelFiles.find(str(TINY)), recipe(tmp_path, "hbpo"), tmp_path / "out")


@given(st.integers(1, 64), st.lists(st.integers(0, 8), max_size=8))
def test_workers_are_spread_evenly_on_nodes_that_have_the_room(
    workers: int, slots: list[int]
) -> None:
    try:
        nodes = spread(workers, slots)
    except RecipeError:
        nodes = []
        for count in range(1, len(slots) + 1):
            assert workers % count or sorted(slots)[-count] < workers // count
    else:
        assert sum(nodes) == workers
        assert len(set(nodes)) == 1
        largest = sorted(slots, reverse=True)
        assert all(each <= room for each, room in zip(nodes, largest, strict=False))
