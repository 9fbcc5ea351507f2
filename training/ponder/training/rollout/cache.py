"""Keys and values of rows that grow by a token at a time, and the attention that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BLOCK = 64
"""Tokens by which a buffer grows."""
_ATTENTION = "ponder_grouped_sdpa"


class BlockLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """Keys and values (B, heads, T, head_dim) in a buffer that grows by blocks along T.

    Between `reserve` and `settle` the buffer keeps its place in memory, as a CUDA graph demands:
    new keys go to the place that a tensor names, and attention reads the whole buffer.
    """

    _buffers: tuple[torch.Tensor, ...]
    _slot: torch.Tensor | None = None
    keys: torch.Tensor
    values: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        new = (key_states, value_states)
        if self._slot is not None:
            for buffer, states in zip(self._buffers, new, strict=True):
                buffer.index_copy_(-2, self._slot, states)
            keys, values = self._buffers
            return keys, values
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if length == 0:
            self._buffers = tuple(_grown(None, states, end + BLOCK) for states in new)
        elif end > self._buffers[0].shape[-2]:
            self._grow(end + BLOCK)
        for buffer, states in zip(self._buffers, new, strict=True):
            buffer[..., length:end, :] = states
        self._show(end)
        return self.keys, self.values

    def select(self, rows: torch.Tensor) -> None:
        """Keep only `rows` of the batch; a row may appear several times."""
        length = self.get_seq_length()
        self._buffers = tuple(buffer.index_select(0, rows) for buffer in self._buffers)
        self._show(length)

    def reserve(self, tokens: int, slot: torch.Tensor) -> int:
        """Make room for `tokens` more, each kept at the place that `slot` (1,) holds by then.
        Returns the places of the buffer.
        """
        if (end := self.get_seq_length() + tokens) > self._buffers[0].shape[-2]:
            self._grow(end)
        self._slot = slot
        return self._buffers[0].shape[-2]

    def settle(self, tokens: int) -> None:
        """End what `reserve` began, after so many tokens."""
        self._slot = None
        self._show(self.get_seq_length() + tokens)

    def _grow(self, places: int) -> None:
        filled = (self.keys, self.values)
        self._buffers = tuple(_grown(states, states, places) for states in filled)

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)


def _grown(old: torch.Tensor | None, like: torch.Tensor, places: int) -> torch.Tensor:
    buffer = like.new_zeros((*like.shape[:-2], places, like.shape[-1]))
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
def grouped_attention(model: Any) -> Iterator[None]:
    """Replace transformers' own scaled dot-product attention by one that shares keys in place."""
    usual = model.config._attn_implementation
    if usual != "sdpa":
        yield
        return
    model.set_attn_implementation(_ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
