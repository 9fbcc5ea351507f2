from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from random import Random
from statistics import pvariance

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.method.batch import Batch, Context, Node, Rollout, Scores
from ponder.training.method.d3s import D3s, kth_largest, most_varied, muted
from ponder.training.rollout.rows import pack
from training.method.scored import context, prompt, ranked, scored, written


def by_token(sequences: Sequence[Sequence[int]]) -> list[Scores]:
    """Entropies that a token's number decides."""
    found = [torch.tensor([((7 * i) % 11) / 4 for i in ids[1:]]) for ids in sequences]
    return [Scores(torch.zeros(len(it)), it) for it in found]


def ask(config: D3s, step: int = 0) -> Batch:
    """Two groups of four, after both stages."""
    return both(config, step)(seen(), replace(context(), score=by_token))


def seen(advantage: Sequence[float] = (1.0, -1.0, 0.1, 0.0, 2.0, 0.5, 0.4, -0.3)) -> Batch:
    return written(scored([4, 4], advantage=advantage), [6, 5, 4, 3, 6, 5, 4, 3])


class both:  # reads as a function
    def __init__(self, config: D3s, step: int = 0) -> None:
        self.config, self.step = config, step

    def __call__(self, batch: Batch, asked: Context) -> Batch:
        for stage in self.config.stages():
            batch = stage(batch, replace(asked, step=self.step))
        return batch


def learnt(batch: Batch) -> list[int]:
    ones = torch.ones(())
    return [pack(rollout, ones, ones, {}).learnt_tokens for rollout in batch.rollouts]


values = st.lists(st.integers(-8, 8).map(lambda n: n / 4), min_size=1, max_size=8)


@given(values, st.data())
def test_no_choice_of_as_many_varies_more(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    kept = most_varied(torch.tensor(values), count)
    assert len(set(kept)) == count
    best = max(pvariance(some) for some in combinations(values, count))
    assert pvariance([values[i] for i in kept]) == pytest.approx(best)


def test_rows_that_say_little_are_muted_and_no_token_of_theirs_counts() -> None:
    found = ask(D3s(rows=0.5, tokens=1))
    assert [n > 0 for n in learnt(found)] == [True, True, False, False, True, False, False, True]
    assert learnt(found) == [6, 5, 0, 0, 6, 0, 0, 3]


@given(values, st.floats(0.05, 1))
def test_the_share_is_reached_and_no_more_than_ties_are_above_it(
    values: list[float], share: float
) -> None:
    least = kth_largest(torch.tensor(values), share)
    wanted = share * len(values) - 1e-9
    assert sum(v >= least for v in values) >= wanted > sum(v > least for v in values) - 1


def test_the_slow_way_keeps_the_same_tokens() -> None:
    rng = Random(3)
    for _ in range(30):
        batch = seen([rng.uniform(-2, 2) for _ in range(8)])
        share = rng.uniform(0.05, 1)
        weights = {}
        for i, rollout in enumerate(batch.rollouts):
            entropies = by_token([(*rollout.prompt.ids, *rollout.tokens)])[0].entropies
            for t in range(len(rollout.tokens)):
                weight = abs(batch["advantage"][i].item()) * entropies[t + 2].item()
                weights[i, t] = weight
        count = next(k for k in range(len(weights) + 1) if k >= share * len(weights) - 1e-9)
        least = sorted(weights.values(), reverse=True)[count - 1]
        config = D3s(rows=1, tokens=share)
        found = both(config)(batch, replace(context(), score=by_token))
        for i, rollout in enumerate(found.rollouts):
            row = pack(rollout, torch.ones(()), None, {})
            expected = [weights[i, t] >= least - 1e-6 for t in range(len(rollout.tokens))]
            assert list(row.learnt) == expected


def test_the_schedule_ends_with_all_of_it() -> None:
    config = D3s(rows=0.5, tokens=0.1, until=10)
    counts = [sum(learnt(ask(config, step))) for step in (0, 3, 6, 10, 99)]
    assert counts == sorted(counts) and counts[0] < counts[1] < counts[2] < counts[3]
    assert counts[3] == counts[4] == 36


def test_processes_share_one_threshold() -> None:
    whole = seen()
    parts = [whole.groups([True, False]), whole.groups([False, True])]
    config = D3s(rows=1, tokens=0.3)
    found, _ = ranked(parts, both(config), by_token)
    together = [rollout for part in found for rollout in part.rollouts]
    alone = both(config)(whole, replace(context(), score=by_token))
    assert together == list(alone.rollouts)


def test_branches_of_a_muted_thought_are_muted_and_others_are_kept_whole() -> None:
    trunk = Node((7, 8, 9), "thought", place=(0,))
    branch = Node((9, 5, 6), "summary", 0, 2, 1, place=(0, 0))
    rollout = Rollout(prompt("q0"), (trunk, branch), 3, ())
    ones = torch.ones(1), torch.ones(1, 1)
    assert pack(muted(rollout), *ones, {}).learnt_tokens == 0
    batch = scored([1], advantage=[[1.0]]).with_rollouts([rollout])
    found = both(D3s(tokens=0.1))(batch, replace(context(), score=by_token))
    assert pack(found.rollouts[0], *ones, {}).learnt_tokens == 1 + 2
