import pytest
import torch

from ponder.training.algorithms import grpo
from ponder.training.algorithms.outcomes import Advantages, Outcomes
from ponder.training.methods import GrpoConfig


def test_correct_against_wrong() -> None:
    correct_B = torch.tensor([True, False, False, False, True, True, True, True])
    outcomes = Outcomes(correct_B, correct_B, torch.ones(8), torch.zeros(8))
    config = GrpoConfig(group_size=4)
    rewards_B = grpo.reward(outcomes, config)
    assert rewards_B.tolist() == [1, 0, 0, 0, 1, 1, 1, 1]
    segments_BS = grpo.advantage(rewards_B, outcomes, config).segments_BS
    # Mean 1/4; the unbiased std of (1, 0, 0, 0) is 1/2.
    assert segments_BS.shape == (8, 1)
    assert segments_BS[:, 0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0], 1e-5)


def test_one_segment_covers_the_response() -> None:
    advantages = Advantages(torch.tensor([[2.0], [-1.0]]))
    tokens_BT = advantages.tokens(torch.tensor([3, 1]), 4)
    assert tokens_BT.tolist() == [[2, 2, 2, 0], [-1, 0, 0, 0]]


def test_segments_start_where_they_say() -> None:
    advantages = Advantages(torch.tensor([[1.0, 2.0, 3.0]] * 3), starts=(0, 2, 3))
    tokens_BT = advantages.tokens(torch.tensor([6, 3, 0]), 6)
    assert tokens_BT.tolist() == [[1, 1, 2, 3, 3, 3], [1, 1, 2, 0, 0, 0], [0] * 6]
