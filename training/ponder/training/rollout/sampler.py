"""Samples many continuations at once with a plain transformers model.

Four things make it several times faster than `model.generate` on rollouts: copies of one prompt
share its prefill, finished rows leave the batch, the cache grows in blocks instead of by a copy per
token, and heads that share keys read them where they are.

Every row has its own random numbers: one uniform number per token, drawn from a key. So a sample
does not depend on the other rows of its batch, on the process that draws it, or on where a run was
resumed. Rows are sampled in as many batches as memory requires.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_BLOCK = 64
# Rows are dropped from the batch once this share of it has finished.
_COMPACT_AT = 0.25
# Tokens between two checks for finished rows, on a CPU and on a GPU; on a GPU a check waits for it.
_LOOKS = (1, 16)
_ATTENTION = "ponder_grouped_sdpa"
# Bytes for each entry of the vocabulary: at most three float64 numbers at once.
_PICKED = 24


class _BlockLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """Keys and values (B, heads, T, head_dim) in a buffer that grows by blocks along T."""

    _buffers: tuple[torch.Tensor, ...]
    keys: torch.Tensor
    values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if length == 0 or end > self._buffers[0].shape[-2]:
            room = end + _BLOCK
            self._buffers = tuple(
                _grown(old if length else None, new, room)
                for old, new in ((self.keys, key_states), (self.values, value_states))
            )
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., length:end, :] = new
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def select(self, rows: torch.Tensor) -> None:
        """Keep only `rows` of the batch; a row may appear several times."""
        self._buffers = tuple(buffer.index_select(0, rows) for buffer in self._buffers)
        length = self.get_seq_length()
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)


def _grown(old: torch.Tensor | None, new: torch.Tensor, room: int) -> torch.Tensor:
    buffer = new.new_zeros((*new.shape[:-2], room, new.shape[-1]))
    if old is not None:
        buffer[..., : old.shape[-2], :] = old
    return buffer


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention; (B, 1, heads, head_dim) for one new token per row.

    transformers copies the keys and values of the whole cache for every head that shares them.
    Here the heads of a group become several queries of one head instead.
    """
    rows, heads, tokens, size = query.shape
    if tokens > 1:
        given = (module, query, key, value, attention_mask)
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            *given, scaling=scaling, **options
        )
        return attended
    grouped = query.view(rows, key.shape[1], -1, size)
    output = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return output.reshape(rows, 1, heads, size), None


AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


@contextmanager
def _attending(model: Any) -> Iterator[None]:
    """Replace transformers' own scaled dot-product attention by `_attend`."""
    usual = model.config._attn_implementation
    if usual != "sdpa":
        yield
        return
    model.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


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
    with _attending(model):
        for rows in batches(prompts, noise_BT.shape[1], row_bytes(model), room):
            part = [prompts[row] for row in rows]
            found = _sample(model, part, noise_BT[rows], stop_ids, temperature)
            for row, sampled in zip(rows, found, strict=True):
                ids[row] = sampled
    return ids


RowBytes = Callable[[int], float]
"""Bytes that sampling a row takes, by its number of tokens, the prompt included."""


def row_bytes(model: Any) -> RowBytes:
    """The bytes that `model` needs for a row, from its configuration."""
    return bytes_of(model.config, model.dtype.itemsize)


def bytes_of(config: Any, width: int) -> RowBytes:
    """Bytes of a row's keys and values at `width` bytes per number, and of `pick`'s tensors."""
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * width
    choice = config.vocab_size * (width + _PICKED)
    return lambda tokens: (tokens + _BLOCK) * token + choice


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


def _sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    noise_BT: torch.Tensor,
    stop_ids: frozenset[int],
    temperature: float,
) -> list[list[int]]:
    device = model.device
    distinct = sorted(set(map(tuple, prompts)))
    index = {prompt: i for i, prompt in enumerate(distinct)}
    width = max(map(len, distinct))
    ids_PT = torch.zeros(len(distinct), width, dtype=torch.long)
    mask_PT = torch.zeros(len(distinct), width, dtype=torch.long)
    for i, prompt in enumerate(distinct):
        ids_PT[i, width - len(prompt) :] = torch.tensor(prompt)
        mask_PT[i, width - len(prompt) :] = 1

    cache = DynamicCache()
    cache.layers = [_BlockLayer() for _ in range(model.config.num_hidden_layers)]
    ids_PT, mask_PT = ids_PT.to(device), mask_PT.to(device)
    position_PT = (mask_PT.cumsum(-1) - 1).clamp(min=0)
    logits_PV = _forward(model, ids_PT, mask_PT, position_PT, cache)

    rows = torch.tensor([index[tuple(prompt)] for prompt in prompts], device=device)
    logits_BV, mask_BT, at_B = logits_PV[rows], mask_PT[rows], mask_PT.sum(-1)[rows]
    for layer in cache.layers:
        layer.select(rows)
    rows_R, longest = len(prompts), noise_BT.shape[1]
    noise_BT = noise_BT.to(device)
    stops = torch.tensor(sorted(stop_ids), device=device)
    tokens_RT = torch.zeros(rows_R, longest, dtype=torch.long, device=device)
    lengths_R = torch.full((rows_R,), longest, device=device)
    active = torch.arange(rows_R, device=device)  # row of the batch → row of the caller
    done_B = torch.zeros(rows_R, dtype=torch.bool, device=device)
    every = _LOOKS[device.type == "cuda"]
    for step in range(longest):
        token_B = pick(logits_BV, noise_BT[active, step], temperature)
        tokens_RT[active, step] = token_B
        ends_B = torch.isin(token_B, stops) & ~done_B
        lengths_R[active] = lengths_R[active].masked_fill(ends_B, step + 1)
        done_B |= ends_B
        if step + 1 == longest:
            break
        if (step + 1) % every == 0:
            share = float(done_B.float().mean())
            if share == 1.0:
                break
            if share >= _COMPACT_AT:
                keep = (~done_B).nonzero().squeeze(-1)
                active, done_B, token_B = active[keep], done_B[keep], token_B[keep]
                mask_BT, at_B = mask_BT[keep], at_B[keep]
                for layer in cache.layers:
                    layer.select(keep)
        mask_BT = torch.cat((mask_BT, mask_BT.new_ones(len(mask_BT), 1)), dim=1)
        logits_BV = _forward(model, token_B[:, None], _seen(mask_BT), at_B[:, None], cache)
        at_B = at_B + 1
    pairs = zip(tokens_RT.tolist(), lengths_R.tolist(), strict=True)
    return [tokens[:length] for tokens, length in pairs]


def _seen(mask_BT: torch.Tensor) -> torch.Tensor:
    """The attention mask of one new token per row: on a GPU (B, 1, 1, T), else (B, T).

    transformers would search a mask (B, T) for padding, and so wait for the GPU at every token.
    """
    return mask_BT[:, None, None].bool() if mask_BT.is_cuda else mask_BT


def pick(logits_BV: torch.Tensor, noise_B: torch.Tensor, temperature: float) -> torch.Tensor:
    """The token at which each row's cumulative probability passes its uniform number.

    At temperature 0 the likeliest.
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    cumulative_BV = (logits_BV.double() / temperature).softmax(-1).cumsum(-1)
    target_B1 = noise_B[:, None] * cumulative_BV[:, -1:]
    last = logits_BV.shape[-1] - 1
    return torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1).clamp(max=last)


def _forward(
    model: Any,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    position_BT: torch.Tensor,
    cache: DynamicCache,
) -> torch.Tensor:
    """Logits (B, V) after the last token."""
    logits: torch.Tensor = model(
        input_ids=ids_BT,
        attention_mask=mask_BT,
        position_ids=position_BT,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return logits[:, -1]
