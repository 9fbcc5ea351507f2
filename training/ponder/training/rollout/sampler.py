"""Samples many continuations at once with a plain transformers model.

Five things make it several times faster than `model.generate` on rollouts: copies of one prompt
share its prefill, finished rows leave the batch, the cache grows in blocks instead of by a copy per
token, heads that share keys read them where they are, and a GPU replays a token's kernels.

Every row has its own random numbers: one uniform number per token, drawn from a key. So a sample
does not depend on the other rows of its batch, on the process that draws it, or on where a run was
resumed. Rows are sampled in as many batches as memory requires.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .cache import BLOCK, grouped_attention
from .decoding import Decoding
from .masks import SLOT_KERNELS, refusal

# Bytes for each entry of the vocabulary: at most three float64 numbers at once.
_PICKED = 24


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    noise_BT: torch.Tensor,
    *,
    stop_ids: frozenset[int],
    temperature: float = 1.0,
    room: float = math.inf,
) -> list[list[int]]:
    """Continue every prompt by at most T tokens, ending with the first of `stop_ids`.

    `noise_BT` has the uniform numbers that pick each row's tokens (see `uniforms`). Rows with equal
    prompts are prefilled once. Keys, values and the choice of tokens take at most `room` bytes:
    further rows wait for the next batch. Returns the sampled token ids, the stop token included.
    """
    ids: list[list[int]] = [[] for _ in prompts]
    slots = model.device.type == "cuda" and refusal(model.config, SLOT_KERNELS) is None
    with grouped_attention(model):
        for rows in batches(prompts, noise_BT.shape[1], row_bytes(model), room):
            part = [prompts[row] for row in rows]
            numbers_BT = noise_BT[rows]
            decoding = Decoding(model, part, numbers_BT, stop_ids, temperature, slots=slots)
            found = decoding.finish()
            for row, sampled in zip(rows, found, strict=True):
                ids[row] = sampled
    return ids


RowBytes = Callable[[int], float]
"""Bytes that sampling a row takes, by its number of tokens, the prompt included."""


def row_bytes(model: Any) -> RowBytes:
    """The bytes that `model` needs for a row, from its configuration."""
    return bytes_of(model.config, model.dtype.itemsize, model.device.type)


def bytes_of(config: Any, width: int, device: str) -> RowBytes:
    """Bytes of a row's keys and values at `width` bytes per number, and of `pick`'s tensors, which
    a CUDA graph holds beside those of its first token.
    """
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * width
    choice = config.vocab_size * (width + _PICKED) * (2 if device == "cuda" else 1)
    return lambda tokens: (tokens + BLOCK) * token + choice


def batches(
    prompts: Sequence[Sequence[int]], longest: int, needs: RowBytes, room: float
) -> list[list[int]]:
    """The indices of all rows, in batches that fit `room` or have a single row.

    A batch's prompts have similar lengths, and copies of a prompt lie side by side.
    """
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), prompts[row]))
    made: list[list[int]] = []
    for row in order:
        need = needs(len(prompts[row]) + longest)
        if not made or (len(made[-1]) + 1) * need > room:
            made.append([])
        made[-1].append(row)
    return made
