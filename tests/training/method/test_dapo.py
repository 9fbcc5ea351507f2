import pytest
import torch

from ponder.training.method import dapo
from ponder.training.method.batch import Batch
from ponder.training.method.dapo import DapoConfig
from training.method.scored import after, scored


def outcomes(sizes: list[int], correct: list[int], lengths: list[int]) -> Batch:
    return scored(sizes, correct=torch.tensor(correct).bool(), length=lengths)


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0), (16384, 0), (17408, -0.25), (18432, -0.5), (20480, -1)],
)
def test_the_last_tokens_cost(length: int, penalty: float) -> None:
    found = dapo.overlong_penalty(torch.tensor([length]), 20480, 4096)
    assert found.tolist() == pytest.approx([penalty])


def test_reward_and_penalty_add_up() -> None:
    config = DapoConfig(longest=100, overlong_buffer=20, overlong_factor=0.5)
    seen = outcomes([4], [1, 0, 1, 0], [80, 80, 90, 100])
    assert after(config, seen, "reward")["reward"].tolist() == pytest.approx([1, 0, 0.75, -0.5])


def test_groups_that_agree_are_dropped() -> None:
    seen = outcomes([2] * 4, [0, 0, 0, 1, 1, 0, 1, 1], [1] * 8)
    config = DapoConfig(group_size=2)
    kept = after(config, seen, "select")
    assert kept.sizes == (2, 2) and [p.key for p in kept.prompts] == ["q1", "q2"]
    everything = config.model_copy(update={"dynamic_sampling": False})
    assert after(everything, seen, "select") is seen
    assert (config.attempts, everything.attempts) == (10, 1)


def test_length_alone_keeps_no_group() -> None:
    """Dynamic sampling looks at accuracy, not at rewards that the penalty tells apart."""
    config = DapoConfig(group_size=2)
    seen = after(config, outcomes([2], [1, 1], [10, 20480]), "reward")
    assert seen["reward"].unique().numel() == 2
    assert after(config, seen, "select").sizes == ()
