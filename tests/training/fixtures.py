"""A recipe and a tokenizer small enough for tests."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from ponder.training.coldstart.examples import tokenizer_corpus
from ponder.training.coldstart.sft import SftResult, train_sft
from ponder.training.coldstart.tokenizer import train_tokenizer
from ponder.training.run.recipe import SftRecipe


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order; what a run leaves in its process is put back, its precision among it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    AcceleratorState._reset_state()


@pytest.fixture(scope="session")
def recipe() -> SftRecipe:
    return SftRecipe.model_validate(
        {
            "name": "test",
            "seed": 5,
            "model": {
                "vocabulary": 640,
                "hidden": 16,
                "layers": 1,
                "heads": 2,
                "kv_heads": 1,
                "head_dim": 8,
                "intermediate": 32,
                "positions": 1024,
            },
            "traces": {
                "budgets": [40, 80, 160, 200],
                "hinted": 0.5,
                "minimal": 0.05,
                "cut": 0.35,
                "cut_at_zero": 0.25,
                "longest": 320,
                "terse_until": 0.4,
                "everyday": 0.0,
                "tools": 0.0,
            },
            "optimisation": {
                "steps": 3,
                "tokens_per_step": 1024,
                "muon_lr": 0.01,
                "adamw_lr": 0.004,
                "warmup_steps": 1,
                "clip_norm": 1.0,
                "validate_every": 3,
            },
        }
    )


@pytest.fixture(scope="session")
def tokenizer(recipe: SftRecipe) -> Any:
    return train_tokenizer(tokenizer_corpus(Random(0), 500, recipe.traces), 640, 512)


@pytest.fixture(scope="session")
def trained(recipe: SftRecipe) -> SftResult:
    """Three steps of training: the weights are noise, everything around them is real."""
    return train_sft(recipe, progress=False)
