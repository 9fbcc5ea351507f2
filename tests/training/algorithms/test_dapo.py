import pytest
import torch

from ponder.training.algorithms import dapo
from ponder.training.algorithms.outcomes import Outcomes
from ponder.training.methods import DapoConfig


def outcomes(correct: list[int], lengths: list[int]) -> Outcomes:
    correct_B = torch.tensor(correct).bool()
    return Outcomes(correct_B, correct_B, torch.tensor(lengths), torch.zeros(len(correct)))


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0), (16384, 0), (17408, -0.25), (18432, -0.5), (20480, -1)],
)
def test_the_last_tokens_cost(length: int, penalty: float) -> None:
    found = dapo.overlong_penalty(torch.tensor([length]), 20480, 4096)
    assert found.tolist() == pytest.approx([penalty])


def test_reward_and_penalty_add_up() -> None:
    config = DapoConfig(longest=100, overlong_buffer=20, overlong_factor=0.5)
    seen = outcomes([1, 0, 1, 0], [80, 80, 90, 100])
    assert dapo.reward(seen, config).tolist() == pytest.approx([1, 0, 0.75, -0.5])


def test_groups_that_agree_are_dropped() -> None:
    seen = outcomes([0, 0, 0, 1, 1, 0, 1, 1], [1] * 8)
    config = DapoConfig(group_size=2)
    assert dapo.keep(seen, config).tolist() == [False, True, True, False]
    everything = config.model_copy(update={"dynamic_sampling": False})
    assert dapo.keep(seen, everything).tolist() == [True] * 4


def test_length_alone_keeps_no_group() -> None:
    """Dynamic sampling looks at accuracy, not at rewards that the penalty tells apart."""
    seen = outcomes([1, 1], [10, 20480])
    config = DapoConfig(group_size=2)
    assert dapo.reward(seen, config).unique().numel() == 2
    assert dapo.keep(seen, config).tolist() == [False]
