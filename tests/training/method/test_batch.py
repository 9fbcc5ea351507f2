"""Groups of any size, and rollouts that are cut."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ponder.tasks.workers import Verdict
from ponder.training.method.batch import Answer, Batch, Node, Rollout
from ponder.training.rollout.rows import Chunk, pack
from training.method.scored import prompt, scored

sizes = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def numbered(counts: list[int]) -> Batch:
    rollouts = [
        Rollout(prompt(f"q{q}"), (Node((n,), "response"),), 0)
        for q, size in enumerate(counts)
        for n in range(size)
    ]
    seen = scored(counts, number=torch.arange(sum(counts)), pair=torch.zeros(sum(counts), 2))
    return seen.with_rollouts(rollouts)


@given(sizes)
def test_groups_see_their_own_rollouts_alone(counts: list[int]) -> None:
    seen = numbered(counts).with_columns(value=torch.arange(sum(counts)).double())
    means_B = seen.per_group(lambda value_G: value_G.mean().expand(len(value_G)), "value")
    parts = seen["value"].split(counts)
    assert means_B.tolist() == [part.mean().item() for part in parts for _ in part]


@given(sizes, st.randoms())
def test_what_is_kept_stays_together(counts: list[int], rng: Random) -> None:
    seen = numbered(counts)
    kept_B = torch.tensor([rng.random() < 0.6 for _ in range(sum(counts))])
    found = seen.keep(kept_B)
    assert found["number"].tolist() == kept_B.nonzero().flatten().tolist()
    assert sum(found.sizes) == len(found.rollouts) and 0 not in found.sizes
    owners = [
        p.key
        for p, (low, high) in zip(found.prompts, found.bounds, strict=True)
        for _ in range(low, high)
    ]
    assert owners == [rollout.prompt.key for rollout in found.rollouts]


@given(sizes, st.data())
def test_whole_groups_part_and_join(counts: list[int], data: st.DataObject) -> None:
    seen = numbered(counts)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts)))
    parts = [seen.groups([c == side for c in chosen]) for side in (True, False)]
    joined = Batch.joined(parts)
    assert sorted(joined["number"].tolist()) == list(range(sum(counts)))
    assert sorted(joined.sizes) == sorted(counts)


def test_no_groups_have_columns_of_the_shape_there_would_be() -> None:
    def twice(value_Gx: Tensor) -> Tensor:
        return torch.stack([value_Gx.float(), value_Gx.float()], 1)

    empty = scored([2], value=[1, 2], reward=[1.0, 2.0]).keep(torch.zeros(2).bool())
    assert empty.sizes == () and empty.per_group(twice, "value").shape == (0, 2)
    assert Batch.joined([empty, empty])["value"].shape == (0,)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="no column reward: it has correct, length"):
        _ = scored([1], correct=[True], length=[3])["reward"]


def test_a_cut_leaves_hint_and_head_and_has_to_be_read_again() -> None:
    nodes = (Node((1, 2), "hint"), Node((3, 4, 5), "response", 0), Node((6,), "response", 1))
    whole = Rollout(prompt("a"), nodes, 4, (Answer("x", True),))
    found = whole.cut("response", 2)
    assert (found.of("hint"), found.of("response")) == ((1, 2), (3, 4))
    assert found.answers is None and len(found.nodes) == 2
    assert whole.cut("response", 9).of("response") == (3, 4, 5, 6)
    branch = Node((7, 8), "summary", parent=1, after=1, forced=1)
    with pytest.raises(ValueError, match="branches saw the tail"):
        Rollout(prompt("a"), (*nodes, branch), 4).cut("response", 1)


def test_an_answer_is_correct_when_it_is_in_form_and_judged_so() -> None:
    assert Answer("a", True, (), Verdict(True)).correct
    assert not Answer("a", False, (), Verdict(True)).correct
    assert not Answer("a", True).correct


def test_branches_hang_where_they_left_the_trunk() -> None:
    nodes = (
        Node((10, 11), "thought", place=(0,)),
        Node((12, 13), "thought", 0, place=(1,)),
        Node((20, 21), "summary", 0, 1, 1, place=(0,)),
        Node((30, 31), "summary", 1, 2, 1, place=(1,)),
    )
    rollout = Rollout(prompt("a"), nodes, 4)
    row = pack(rollout, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), {"correct": True})
    assert row.completion == (10, 11, 12, 13) and row.advantages == (1, 1, 2, 2)
    # The prompt has three tokens.
    assert row.chunks == (Chunk(4, (20, 21), 1, 3.0), Chunk(7, (30, 31), 1, 4.0))
    silent = pack(rollout, None, None, {})
    assert not any(silent.learnt) and silent.chunks == () and silent.learnt_tokens == 0
    deeper = Rollout(prompt("a"), (*nodes, Node((40, 41), "summary", 2, 1, 1, place=(0,))), 4)
    with pytest.raises(ValueError, match="every leaf of a deeper tree a rollout of its own"):
        pack(deeper, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), {})
