"""The tiny reasoner: Qwen3's architecture at a thousandth of its size."""

from __future__ import annotations

from typing import Any

from ..run.recipe import ModelShape
from .tokenizer import END_OF_TEXT, TURN_END

_TEMPERATURE = 0.6
"""The sampling that the checkpoint recommends to servers, as Qwen3 does; training samples at 1."""


def build_model(shape: ModelShape, tokenizer: Any) -> Any:
    """A freshly initialised `Qwen3ForCausalLM` in float32; torch's seed decides its weights."""
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    end_id = tokenizer.convert_tokens_to_ids(TURN_END)
    pad_id = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        use_cache=False,
        eos_token_id=end_id,
        pad_token_id=pad_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=_TEMPERATURE, eos_token_id=end_id, pad_token_id=pad_id
    )
    return model
