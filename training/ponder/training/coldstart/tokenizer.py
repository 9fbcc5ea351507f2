"""The tiny tokenizer: byte-level BPE of a few hundred entries, one token per digit.

With the full byte alphabet any Unicode text survives a round trip. A token may be a digit with the
space before it (`" 8"`), which marks where a number begins, but never two digits: the model learns
arithmetic on single digits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
THINK_START = "<think>"
THINK_END = "</think>"
TOOL_CALL = "<tool_call>"
# Markers of thoughts and calls, which a decoder that skips special tokens keeps, as in Qwen3.
VISIBLE_MARKERS = (
    THINK_START,
    THINK_END,
    TOOL_CALL,
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, *VISIBLE_MARKERS)

_PIECES = r" ?[0-9]| ?[A-Za-z]+|\n+| ?[^\sA-Za-z0-9]+|\s"
_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def train_tokenizer(texts: Iterable[str], vocabulary: int, positions: int) -> Any:
    """A `PreTrainedTokenizerFast` of at most `vocabulary` entries, its chat template included.

    `positions` is the longest sequence of the tokenizer's model, in tokens.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(t, normalized=False, special=True) for t in SPECIAL_TOKENS],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_with_visible_markers(tokenizer.to_str())),
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
        chat_template=_TEMPLATE.read_text(encoding="utf-8"),
    )


def _with_visible_markers(spec: str) -> str:
    """The tokenizer's JSON, changed so that decoders which skip special tokens keep the markers."""
    tokenizer = json.loads(spec)
    for token in tokenizer["added_tokens"]:
        token["special"] = token["content"] not in VISIBLE_MARKERS
    return json.dumps(tokenizer)
