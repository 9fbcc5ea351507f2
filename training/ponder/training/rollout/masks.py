"""Attention masks of our own, in the form that a model's layers and attention kernel take.

transformers makes its masks from one number per token, which is too little for a tree of summaries
and, on a GPU, makes every token wait. Masks that are given instead are used as they are: so they
must know of sliding windows, and of what a kernel does with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

_WHOLE, _SLIDING = "full_attention", "sliding_attention"
SLOT_KERNELS = ("sdpa", "eager")
"""Attention kernels that take `slot_masks`."""


def refusal(config: Any, kernels: Sequence[str]) -> str | None:
    """What of a model keeps it from taking these masks, in words; None where it takes them."""
    config = config.get_text_config()
    # Older configurations name their layers' types otherwise.
    named = (getattr(config, n, None) or () for n in ("layers_block_type", "block_types"))
    types = {*_layer_types(config), *chain.from_iterable(named)}
    if others := sorted(types - {_WHOLE, _SLIDING, "attention"}):
        return f"its layers of type {', '.join(others)}"
    if not getattr(config, "num_attention_heads", None):
        return "its lack of attention heads"
    if config._attn_implementation not in kernels:
        return f"its attention kernel {config._attn_implementation}"
    return None


def tree_masks(
    config: Any,
    hidden_from_BW: torch.Tensor,
    hidden_to_BW: torch.Tensor,
    position_BW: torch.Tensor,
    dtype: torch.dtype,
) -> Any:
    """Masks under which a token of a packed row sees its own past (see `rows.collate`).

    Dense masks take W² bytes per row, so they are made for one batch at a time and not kept;
    flex_attention takes blocks of 128 × 128 tokens instead.
    """
    config = config.get_text_config()
    if config._attn_implementation == "flex_attention":
        return _by_layer(config, _Blocks(hidden_from_BW, hidden_to_BW, position_BW))
    key_W = torch.arange(hidden_from_BW.shape[1], device=hidden_from_BW.device)
    hidden_BWW = (key_W >= hidden_from_BW[:, :, None]) & (key_W < hidden_to_BW[:, :, None])
    sees_BWW = (key_W <= key_W[:, None]) & ~hidden_BWW
    return _by_layer(config, _Dense(config, sees_BWW, (position_BW, position_BW), dtype))


def slot_masks(config: Any, seen_BT: torch.Tensor, slot: torch.Tensor, dtype: torch.dtype) -> Any:
    """Masks of one new token per row, which a cache of T places keeps at `slot` (1,).

    `seen_BT` is true where a place holds a token of the row, the new one included.
    """
    config = config.get_text_config()
    place_1T = torch.arange(seen_BT.shape[1], device=seen_BT.device)[None]
    return _by_layer(config, _Dense(config, seen_BT[:, None], (slot[None], place_1T), dtype))


class _Dense:
    """Masks (B, 1, Q, K) from who sees whom and from the positions of both, (B, Q) and (B, K)."""

    def __init__(
        self,
        config: Any,
        sees_BQK: torch.Tensor,
        positions: tuple[torch.Tensor, torch.Tensor],
        dtype: torch.dtype,
    ) -> None:
        self._added = config._attn_implementation == "eager"
        self._sees_BQK, self._positions, self._dtype = sees_BQK, positions, dtype

    def within(self, window: int | None) -> torch.Tensor:
        sees_BQK = self._sees_BQK
        if window is not None:
            query_BQ, key_BK = self._positions
            sees_BQK = sees_BQK & (query_BQ[:, :, None] - key_BK[:, None] < window)
        mask = sees_BQK[:, None]
        if not self._added:
            return mask
        # Eager attention adds its mask: a mask of booleans would let every token see all others.
        lowest = torch.finfo(self._dtype).min
        return torch.zeros_like(mask, dtype=self._dtype).masked_fill(~mask, lowest)


class _Blocks:
    """Block masks of flex_attention for a tree."""

    def __init__(
        self, hidden_from_BW: torch.Tensor, hidden_to_BW: torch.Tensor, position_BW: torch.Tensor
    ) -> None:
        self._tree = hidden_from_BW, hidden_to_BW, position_BW

    def within(self, window: int | None) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        hidden_from_BW, hidden_to_BW, position_BW = self._tree

        def sees(row: Any, head: Any, query: Any, key: Any) -> Any:
            hidden = (key >= hidden_from_BW[row, query]) & (key < hidden_to_BW[row, query])
            seen = (key <= query) & ~hidden
            if window is None:
                return seen
            return seen & (position_BW[row, query] - position_BW[row, key] < window)

        rows, width = position_BW.shape
        return create_block_mask(sees, rows, None, width, width, device=position_BW.device)


def _by_layer(config: Any, masks: _Dense | _Blocks) -> Any:
    """One mask for all layers, or one for each type of layer."""
    types = {*_layer_types(config)}
    window = getattr(config, "sliding_window", None)
    if window is None or types == {_WHOLE}:
        return masks.within(None)
    if types == {_WHOLE, _SLIDING}:
        return {_WHOLE: masks.within(None), _SLIDING: masks.within(window)}
    return masks.within(window)


def _layer_types(config: Any) -> tuple[str, ...]:
    return tuple(getattr(config, "layer_types", None) or ())
