"""The tokens of a batch, one after another, where the model is.

On a GPU the kernels of a token take longer to start than to run. So a token is captured once per
block as a CUDA graph and replayed for the others: everything it changes, it changes in place.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakSet

import torch
from transformers.cache_utils import DynamicCache

from .cache import BLOCK, BlockLayer
from .masks import slot_masks

# Rows are dropped from the batch once this share of it has finished.
_COMPACT_AT = 0.25
# To capture a graph takes as long as to sample some tokens without one.
_WORTH_CAPTURING = 4
_LOG = logging.getLogger(__name__)
_uncaptured: WeakSet[Any] = WeakSet()


class Decoding:
    """R rows that go on together, at most T tokens each; B of them are still in the batch.

    With `slots` the tensors of a token keep their places in memory for a block of tokens, and the
    model gets masks of `masks.slot_masks`, which it must take (`masks.refusal`). Without, it gets
    one number per token, for which transformers waits for a GPU at every token.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        noise_RT: torch.Tensor,
        stop_ids: frozenset[int],
        temperature: float,
        *,
        slots: bool,
    ) -> None:
        device, (rows, self._longest) = model.device, noise_RT.shape
        self._model, self._temperature = model, temperature
        self._noise_RT = noise_RT.to(device)
        self._stops = torch.tensor(sorted(stop_ids), device=device)
        self._tokens_RT = torch.zeros(rows, self._longest, dtype=torch.long, device=device)
        self._lengths_R = torch.full((rows,), self._longest, device=device)
        self._rows_B = torch.arange(rows, device=device)
        self._done_B = torch.zeros(rows, dtype=torch.bool, device=device)
        self._token_B = torch.zeros(rows, dtype=torch.long, device=device)
        self._sampled = 0
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        self._cache = DynamicCache()
        self._cache.layers = [BlockLayer() for _ in range(model.config.num_hidden_layers)]
        width, logits_BV = self._prefill(prompts)
        self._slot = torch.full((1,), width, device=device) if slots else None
        self._places = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = _stream(model.device) if slots and _capturable(model) else None
        self._pool: Any = None if self._stream is None else torch.cuda.graph_pool_handle()
        self._take(logits_BV)
        self._sampled = 1

    def finish(self) -> list[list[int]]:
        """All rows' tokens, once every row has met a stop token or its limit."""
        while self._sampled < self._longest and self._compact():
            block = BLOCK if self._slot is not None else 1
            self._advance(min(block, self._longest - self._sampled))
        pairs = zip(self._tokens_RT.tolist(), self._lengths_R.tolist(), strict=True)
        return [tokens[:length] for tokens, length in pairs]

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[int, torch.Tensor]:
        """The prompts' padded length, and the logits (B, V) after each; equal prompts run once."""
        device = self._rows_B.device
        distinct = sorted(set(map(tuple, prompts)))
        index = {prompt: i for i, prompt in enumerate(distinct)}
        width = max(map(len, distinct))
        ids_PT = torch.zeros(len(distinct), width, dtype=torch.long)
        real_PT = torch.zeros(len(distinct), width, dtype=torch.bool)
        for i, prompt in enumerate(distinct):
            ids_PT[i, width - len(prompt) :] = torch.tensor(prompt)
            real_PT[i, width - len(prompt) :] = True
        ids_PT, real_PT = ids_PT.to(device), real_PT.to(device)
        position_PT = (real_PT.cumsum(-1) - 1).clamp(min=0)
        logits_PV = self._forward(ids_PT, real_PT, position_PT)
        of_B = torch.tensor([index[tuple(prompt)] for prompt in prompts], device=device)
        for layer in self._cache.layers:
            layer.select(of_B)
        self._position_B = real_PT.sum(-1)[of_B]
        self._seen_BT = real_PT.new_zeros(len(prompts), width + self._longest + BLOCK)
        self._seen_BT[:, :width] = real_PT[of_B]
        return width, logits_PV[of_B]

    def _compact(self) -> bool:
        """Whether a row goes on. Rows that ended leave the batch once they are many; a GPU is
        waited for.
        """
        share = float(self._done_B.float().mean())
        if _COMPACT_AT <= share < 1.0:
            keep = (~self._done_B).nonzero().squeeze(-1)
            self._rows_B, self._done_B = self._rows_B[keep], self._done_B[keep]
            self._token_B, self._position_B = self._token_B[keep], self._position_B[keep]
            self._seen_BT = self._seen_BT[keep]
            for layer in self._cache.layers:
                layer.select(keep)
        return share < 1.0

    def _advance(self, tokens: int) -> None:
        """Sample so many tokens of every row."""
        if self._slot is None:
            self._one()
        else:
            for layer in self._cache.layers:
                self._places = layer.reserve(tokens, self._slot)
            if self._stream is not None and tokens >= _WORTH_CAPTURING:
                self._replay(tokens, self._stream)
            else:
                for _ in range(tokens):
                    self._one()
            for layer in self._cache.layers:
                layer.settle(tokens)
        self._sampled += tokens

    def _replay(self, tokens: int, stream: torch.cuda.Stream) -> None:
        current = torch.cuda.current_stream(stream.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._one()  # libraries set themselves up at a first call, which a graph cannot hold
            if (graph := self._captured()) is None:
                self._stream = None
            for _ in range(tokens - 1):
                if graph is None:
                    self._one()
                else:
                    graph.replay()
        current.wait_stream(stream)

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """The kernels of one token, not executed yet; None where the model cannot be captured."""
        try:
            try:
                return self._capture()
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()  # a capture cannot do so by itself
                return self._capture()
        except torch.OutOfMemoryError:
            return None  # for this batch: the next one may be smaller
        except RuntimeError as error:
            _uncaptured.add(self._model)
            _LOG.warning(
                "%s cannot be captured as a CUDA graph, so rollouts are several times slower: %s",
                type(self._model).__name__,
                str(error).partition("\n")[0],
            )
            return None

    def _capture(self) -> torch.cuda.CUDAGraph:
        # torch.cuda.graph would empty the allocator's cache for every block.
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(self._pool, capture_error_mode="thread_local")
        try:
            self._one()
        finally:
            try:
                graph.capture_end()
            except RuntimeError:
                # For the allocator a failed capture goes on, so that it frees no cached memory.
                with suppress(RuntimeError):
                    torch._C._cuda_endAllocateToPool(self._model.device.index, self._pool)
                raise
        self._graph = graph  # the pool lives as long as a graph of it
        return graph

    def _one(self) -> None:
        """Sample the next token of every row."""
        token_B1, position_B1 = self._token_B[:, None], self._position_B[:, None]
        if self._slot is None:
            end = self._cache.get_seq_length() + 1
            self._seen_BT[:, end - 1] = True
            seen: Any = self._seen_BT[:, :end]
        else:
            self._seen_BT.index_fill_(1, self._slot, True)
            part_BT = self._seen_BT[:, : self._places]
            seen = slot_masks(self._model.config, part_BT, self._slot, self._model.dtype)
        logits_BV = self._forward(token_B1, seen, position_B1)
        self._position_B += 1
        if self._slot is not None:
            self._slot += 1
        self._take(logits_BV)

    def _take(self, logits_BV: torch.Tensor) -> None:
        """Keep the tokens that the logits and the rows' numbers pick."""
        token_B = pick(logits_BV, self._noise_RT[self._rows_B, self._step], self._temperature)
        self._tokens_RT[self._rows_B, self._step] = token_B
        self._step += 1
        ends_B = (token_B[:, None] == self._stops).any(-1) & ~self._done_B
        lengths_B = self._lengths_R[self._rows_B]
        self._lengths_R[self._rows_B] = torch.where(ends_B, self._step, lengths_B)
        self._done_B |= ends_B
        self._token_B.copy_(token_B)

    def _forward(self, ids_BT: torch.Tensor, seen: Any, position_BT: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) after the last token."""
        logits: torch.Tensor = self._model(
            input_ids=ids_BT,
            attention_mask=seen,
            position_ids=position_BT,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]


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


def _capturable(model: Any) -> bool:
    """Whether a forward pass is the kernels of one GPU alone: shards talk to each other."""
    shards = any(hasattr(module, "unshard") for module in model.modules())
    shards = shards or any(hasattr(weight, "ds_id") for weight in model.parameters())
    return model.device.type == "cuda" and not shards and model not in _uncaptured


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where captures happen: one, because the allocator keeps memory for every stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
