from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.lite_ppo import LitePpo
from training.method.scored import after, context, ranked, scored

ADDED = GrpoConfig(group_size=4, add=[{"lite_ppo": {}}])


def test_one_wrong_answer_is_not_blown_up() -> None:
    """Of 3 of 4 and 2 of 4 correct, the batch's std is .5175; the groups' are .5 and .5774."""
    seen = scored([4, 4], correct=[1, 1, 1, 0, 1, 1, 0, 0])
    found = after(ADDED, seen)["advantage"].tolist()
    assert found[:4] == pytest.approx([0.25 / 0.5175492] * 3 + [-0.75 / 0.5175492], rel=1e-5)
    assert found[4:] == pytest.approx([x * 0.5 / 0.5175492 for x in (1, 1, -1, -1)], rel=1e-5)


groups = st.lists(st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=6), min_size=1)


@given(groups)
def test_the_slow_way_says_the_same(groups: list[list[float]]) -> None:
    rewards = [r for group in groups for r in group]
    centred = [r - fmean(group) for group in groups for r in group]
    spread = stdev(rewards) if len(rewards) > 1 else 0.0
    seen = scored([len(group) for group in groups], reward=rewards, centred=centred)
    found = LitePpo()(seen, context())["advantage"].tolist()
    assert found == pytest.approx([c / (spread + 1e-6) for c in centred], rel=1e-4, abs=1e-4)


def test_processes_share_one_std() -> None:
    rng = Random(1)
    rewards = [rng.random() for _ in range(12)]
    whole = LitePpo()(scored([4, 4, 4], reward=rewards, centred=rewards), context())["advantage"]
    parts = [
        scored([4, 4], reward=rewards[:8], centred=rewards[:8]),
        scored([4], reward=rewards[8:], centred=rewards[8:]),
    ]
    found, _ = ranked(parts, LitePpo())
    together = [*found[0]["advantage"].tolist(), *found[1]["advantage"].tolist()]
    assert together == pytest.approx(whole.tolist())


def test_a_process_without_rollouts_takes_part() -> None:
    parts = [scored([2], reward=[1.0, 0.0], centred=[0.5, -0.5]), scored([], reward=[], centred=[])]
    found, _ = ranked(parts, LitePpo())
    assert found[0]["advantage"].tolist() == pytest.approx([2**-0.5, -(2**-0.5)], rel=1e-5)
    assert len(found[1]["advantage"]) == 0
