from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.training.method.batch import Batch, Context
from ponder.training.method.v0 import V0, allocated, mixed
from ponder.training.rollout.chances import Chances
from training.method.scored import context, ranked, scored
from training.policy import TINY

ALLOCATE, REMEMBER = V0(least=2, most=3, warmup=8, history=8).stages()


def test_a_mixed_group_is_what_a_binomial_says() -> None:
    """All of p, of B draws: neither none nor all right."""
    for chance, size in product((0.0, 0.1, 0.5, 0.93, 1.0), (1, 2, 5)):
        outcomes = list(product((0, 1), repeat=size))
        likely = [chance ** sum(o) * (1 - chance) ** (size - sum(o)) for o in outcomes]
        some = sum(p for p, o in zip(likely, outcomes, strict=True) if 0 < sum(o) < size)
        assert mixed(chance, size) == pytest.approx(some)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 6))
def test_no_other_allocation_expects_more_mixed_groups(chances: list[float], more: int) -> None:
    least, most = 2, 6
    total = min(least * len(chances) + more, most * len(chances))
    found = allocated(chances, total, least, most)
    assert sum(found) == total and all(least <= size <= most for size in found)

    def expected(sizes: Sequence[int]) -> float:
        return sum(mixed(p, size) for p, size in zip(chances, sizes, strict=True))

    others = product(range(least, most + 1), repeat=len(chances))
    assert expected(found) == pytest.approx(max(expected(s) for s in others if sum(s) == total))


def test_equal_groups_until_enough_is_known() -> None:
    state = {"v0": [[f"q{i}", 0.5] for i in range(7)]}
    asked = scored([4, 4])
    assert ALLOCATE(asked, context(state)).sizes == (4, 4)
    state["v0"].append(["q7", 1.0])

    def predict(prompts: Sequence[str], history: Sequence[tuple[str, float]]) -> list[float]:
        assert len(history) == 8 and history[-1] == ("q7", 1.0)
        return [0.999 if prompt == "q0" else 0.2 for prompt in prompts]

    assert ALLOCATE(asked, replace(context(state), predict=predict)).sizes == (2, 6)


def remembered(batch: Batch, asked: Context) -> Batch:
    return REMEMBER(batch, replace(asked, sampled=[batch]))


def test_processes_remember_the_same_and_a_checkpoint_keeps_it() -> None:
    whole = scored([2] * 5, accuracy=[float(Random(i).random() < 0.5) for i in range(10)])
    parts = [whole.groups([q < 3 for q in range(5)]), whole.groups([q >= 3 for q in range(5)])]
    state: dict[str, Any] = {}
    remembered(whole, context(state))
    _, states = ranked(parts, remembered)
    assert states == [state, state] and len(state["v0"]) == 5
    again = json.loads(json.dumps(state))
    for kept in (state, again):
        remembered(whole, context(kept))
    assert again == state and len(state["v0"]) == 8


def test_the_predictor_of_a_calibration_tells_hard_from_easy() -> None:
    rng = Random(0)
    easy = [f"What is {rng.randint(1, 9)} + {rng.randint(1, 9)}?" for _ in range(30)]
    hard = [f"Sort the letters of {rng.choice(['zebra', 'apple', 'mango'])}." for _ in range(30)]
    history = [*((it, 0.9) for it in easy[10:]), *((it, 0.1) for it in hard[10:])]
    found = Chances(TINY)([*easy[:10], *hard[:10]], history)
    assert min(found[:10]) > 0.6 and max(found[10:]) < 0.4


def test_a_base_without_embeddings_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"v0 predicts from embeddings.*remove v0"):
        Chances(tmp_path)


def test_what_cannot_allocate_is_said() -> None:
    assert "raise the other" in next(V0(least=4).notes(4))
    assert "never allocates" in next(V0(history=8, warmup=9).notes(4))
    assert not list(V0().notes(4))
