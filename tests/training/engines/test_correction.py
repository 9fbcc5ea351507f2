"""What a sampler drew with is found again for packed rows, and what it makes of the loss."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.engines.correction import Drawn, weights
from ponder.training.rollout.rows import Chunk, Row, collate


def log_prob(prefix: tuple[int, ...], token: int) -> float:
    """Any function of what came before and of the token."""
    return -1.0 - hash((prefix, token)) % 1000 / 1000


def drawn_behind(drawn: Drawn, asked: tuple[int, ...], ids: list[int]) -> None:
    drawn.note(asked, ids, [log_prob((*asked, *ids[:i]), ids[i]) for i in range(len(ids))])


@given(seed=st.integers(0, 10_000))
def test_every_sampled_token_of_a_row_gets_its_own(seed: int) -> None:
    rng = Random(seed)

    def some(most: int) -> list[int]:
        return [rng.randrange(5) for _ in range(rng.randint(1, most))]

    drawn, prompt, hint, thought = Drawn(), tuple(some(6)), tuple(some(3)), some(12)
    drawn_behind(drawn, (*prompt, *hint), thought)
    drawn_behind(drawn, (*prompt, *hint), [*thought[:-1], 7])  # another rollout of the prompt
    kept = rng.randint(1, len(thought))  # a part of it may have been cut off
    trunk = (*prompt, *hint, *thought[:kept])
    chunks = []
    for _ in range(rng.randint(0, 3)):
        start, head, said = rng.randint(len(prompt) + 1, len(trunk)), tuple(some(3)), some(4)
        drawn_behind(drawn, (*trunk[:start], *head), said)
        chunks.append(Chunk(start, (*head, *said), len(head), 0.5))
    completion = trunk[len(prompt) :]
    learnt = (*(False,) * len(hint), *(True,) * kept)
    row = Row(prompt, completion, (1.0,) * len(completion), learnt, tuple(chunks))
    batch = collate([row], 0)
    found = drawn.collated([row], batch["input_ids"].shape[1])[0]
    mask = batch["loss_mask"][0].bool()
    assert mask.sum() == row.learnt_tokens and not found[mask].isnan().any()
    expected = [log_prob(trunk[:i], trunk[i]) for i in range(len(prompt) + len(hint), len(trunk))]
    for chunk in chunks:
        whole = (*trunk[: chunk.start], *chunk.ids)
        first = chunk.start + chunk.inserted
        expected += [log_prob(whole[:i], whole[i]) for i in range(first, len(whole))]
    torch.testing.assert_close(found[mask], torch.tensor(expected))


@given(seed=st.integers(0, 10_000))
def test_a_response_is_found_piece_by_piece(seed: int) -> None:
    """As TreePO's segments and T-PPO's windows are: each request continues the one before."""
    rng, drawn, prompt = Random(seed), Drawn(), (1, 2, 3)
    response = [rng.randrange(5) for _ in range(rng.randint(1, 400))]
    unknown = at = rng.randrange(len(response))  # earlier windows were other weights'
    while at < len(response):
        asked, size = (*prompt, *response[:at]), rng.randint(1, 300)
        drawn_behind(drawn, asked, [*response[at : at + size // 2], 7])  # another branch
        drawn_behind(drawn, asked, response[at : at + size])
        at += size
    count = len(response)
    row = Row(prompt, tuple(response), (1.0,) * count, (True,) * count)
    found, whole = drawn.row(row)[len(prompt) :], (*prompt, *response)
    assert all(map(math.isnan, found[:unknown]))
    expected = [log_prob(whole[:i], whole[i]) for i in range(len(prompt) + unknown, len(whole))]
    assert found[unknown:] == expected


def test_a_response_that_writes_the_hint_of_another_leaves_that_one_found() -> None:
    drawn, prompt, hint = Drawn(), (1, 2), (3, 4)
    drawn_behind(drawn, prompt, [*hint, 5, 6])
    drawn_behind(drawn, (*prompt, *hint), [5, 7, 8])
    whole = (*prompt, *hint, 5, 7, 8)
    row = Row(prompt, whole[2:], (1.0,) * 5, (False, False, True, True, True))
    assert drawn.row(row)[4:] == [log_prob(whole[:i], whole[i]) for i in (4, 5, 6)]


def test_what_nobody_drew_counts_once_and_is_not_measured() -> None:
    old, nan = torch.tensor([[0.5, 0.5, 0.1]]).log(), float("nan")
    drawn = torch.tensor([[nan, math.log(0.1), math.log(0.2)]])
    mask = torch.tensor([[1.0, 1.0, 1.0]])
    found, stats = weights(old, drawn, mask, cap=2.0)
    assert found.tolist() == [[1.0, 2.0, pytest.approx(0.5)]]
    assert stats["sampler_ratio"].item() == pytest.approx(5 + 0.5)
    assert stats["sampler_unknown"].item() == 1
    assert stats["sampler_truncated"].item() == 1
    kl = (5 - 1 - math.log(5)) + (0.5 - 1 - math.log(0.5))
    assert stats["sampler_kl"].item() == pytest.approx(kl)
    none = Drawn()
    row = Row((1, 2), (3, 4), (1.0, 1.0), (True, True))
    assert none.collated([row], 4).isnan().all()
