"""Models of random weights beside a real tokenizer: they say anything at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def random_model(tokenizer: Path, directory: Path) -> None:
    """A Qwen3 of two layers beside a tokenizer's files."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, directory)
    vocabulary = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    last = max(vocabulary["model"]["vocab"].values())
    last = max(last, *(token["id"] for token in vocabulary["added_tokens"]))
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=last + 1,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(shape).save_pretrained(directory)
