"""A random Qwen3 model small enough to run in milliseconds, and the bundled tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.training.engines.scoring import add_scoring
from ponder.training.rollout.plans import Reader

TINY = Path(__file__).parents[3] / "server" / "ponder" / "models" / "tiny"


@pytest.fixture(scope="session")
def reader() -> Reader:
    return Reader(Checkpoint.load(ModelFiles.find(str(TINY))))


@pytest.fixture(scope="session")
def model() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    made = Qwen3ForCausalLM(config).eval()
    add_scoring(made)
    return made
