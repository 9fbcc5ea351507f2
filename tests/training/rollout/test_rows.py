"""Rows and the tree mask: packed rows score as separate ones do."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.engines.scoring import score
from ponder.training.rollout.rows import (
    Chunk,
    Row,
    collate,
    passes_of,
    split_by_tokens,
    split_further,
    telling,
    unpack,
)


def packed(rng: Random) -> Row:
    prompt = tuple(rng.randrange(31) for _ in range(rng.randint(2, 6)))
    thought = tuple(rng.randrange(31) for _ in range(rng.randint(3, 12)))
    chunks = []
    for _ in range(rng.randint(1, 4)):
        start = len(prompt) + rng.randint(1, len(thought))
        inserted = tuple(rng.randrange(31) for _ in range(rng.randint(1, 3)))
        answer = tuple(rng.randrange(31) for _ in range(rng.randint(1, 4)))
        chunks.append(Chunk(start, (*inserted, *answer), len(inserted), rng.uniform(-1, 1)))
    values = tuple(rng.uniform(-1, 1) for _ in thought)
    return Row(prompt, thought, values, (True,) * len(thought), tuple(chunks))


def learnt(model: Any, rows: list[Row]) -> list[tuple[float, float, float]]:
    """(log-probability, entropy, advantage) of every learnt token, row by row."""
    batch = collate(rows, pad_id=0)
    log_probs, entropies = score(model, batch)
    keep = batch["loss_mask"].bool()
    return [
        (p, e, a)
        for i in range(len(rows))
        for p, e, a in zip(
            log_probs[i][keep[i]].tolist(),
            entropies[i][keep[i]].tolist(),
            batch["advantages"][i][keep[i]].tolist(),
            strict=True,
        )
    ]


@pytest.mark.parametrize("seed", range(8))
def test_packed_rows_score_as_separate_ones(model: Any, seed: int) -> None:
    rng = Random(seed)
    rows = [packed(rng) for _ in range(3)]
    separate = [part for row in rows for part in unpack(row)]
    together, apart = learnt(model, rows), learnt(model, separate)
    assert len(together) == sum(row.learnt_tokens for row in rows) == len(apart)
    torch.testing.assert_close(torch.tensor(together), torch.tensor(apart), atol=1e-5, rtol=1e-5)
    assert sum(row.tokens for row in rows) < sum(row.tokens for row in separate)


def test_packed_rows_have_the_gradient_of_separate_ones(model: Any) -> None:
    rows = [packed(Random(9)), packed(Random(10))]

    def gradient(parts: list[Row]) -> torch.Tensor:
        batch = collate(parts, pad_id=0)
        log_probs, _ = score(model, batch)
        model.zero_grad()
        (log_probs * batch["advantages"] * batch["loss_mask"]).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    together = gradient(rows)
    apart = gradient([part for row in rows for part in unpack(row)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)
    assert together.abs().max() > 0.01


def test_the_log_probability_is_the_models_own(model: Any) -> None:
    row = Row((1, 2, 3), (4, 5), (0.5, 0.5), (False, True))
    ((log_prob, entropy, advantage),) = learnt(model, [row])
    logits = model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits[0, -1]
    expected = logits.log_softmax(-1)
    assert log_prob == pytest.approx(expected[5].item(), abs=1e-5)
    assert entropy == pytest.approx(-(expected.exp() * expected).sum().item(), abs=1e-5)
    assert advantage == 0.5


def test_padding_changes_nothing(model: Any) -> None:
    short = Row((1, 2), (3, 4), (1.0, 1.0), (True, True))
    long = Row((5,) * 9, (6,) * 20, (1.0,) * 20, (True,) * 20)
    alone = torch.tensor(learnt(model, [short]))
    torch.testing.assert_close(
        torch.tensor(learnt(model, [short, long]))[:2], alone, atol=1e-5, rtol=1e-5
    )


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), parts=st.integers(1, 8))
def test_batches_hold_every_row_once_in_order_of_length(lengths: list[int], parts: int) -> None:
    rows = [Row((i,), (0,) * n, (0.0,) * n, (True,) * n) for i, n in enumerate(lengths)]
    batches = split_by_tokens(rows, parts)
    assert len(batches) == parts
    flat = [row for batch in batches for row in batch]
    assert sorted(row.prompt for row in flat) == [(i,) for i in range(len(rows))]
    assert [row.tokens for row in flat] == sorted(row.tokens for row in flat)
    if len(rows) >= parts:
        assert all(batches)


def test_rows_without_loss_are_computed_only_to_fill_batches() -> None:
    told = Row((1, 2), (3, 4), (1.0, 1.0), (True, False))
    silent = Row((1,), (3, 4), (0.0, 0.0), (False, False))
    chunk = replace(silent, chunks=(Chunk(1, (9, 9), 1, 1.0),))
    assert telling([silent, told, silent], 1) == [told]
    assert telling([silent, chunk, told], 2) == [chunk, told]
    assert telling([silent, told], 2) == [told, silent]
    equal = replace(told, advantages=(0.0, 0.0))
    assert telling([equal, told], 1) == [told], "a token without an advantage has no gradient"
    assert telling([equal, told], 1, zeros=True) == [equal, told]
    filled = telling([told], 3)
    assert filled[0] == told and [row.learnt_tokens for row in filled] == [1, 0, 0]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    most=st.integers(1, 300),
    parts=st.integers(1, 60),
)
def test_passes_hold_every_row_once_and_few_enough_tokens(
    lengths: list[int], most: int, parts: int
) -> None:
    rows = [Row((i,), (0,) * n, (0.0,) * n, (True,) * n) for i, n in enumerate(lengths)]
    passes = passes_of(rows, parts, most)
    assert len(passes) >= parts
    learning = [row for batch in passes for row in batch if row.learnt_tokens]
    assert sorted(row.prompt for row in learning) == [(i,) for i in range(len(rows))]
    for batch in passes:
        assert len(batch) == 1 or len(batch) * max(row.tokens for row in batch) <= most
    assert len(split_further(passes, len(passes) + 3)) == len(passes) + 3
