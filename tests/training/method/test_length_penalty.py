import math

import pytest
import torch

from ponder.training.method.batch import Batch
from ponder.training.method.length_penalty import LengthPenaltyConfig
from training.method.scored import after, scored


def outcomes(correct: list[int], lengths: list[int], formatted: list[int]) -> Batch:
    return scored(
        [len(correct)],
        correct=torch.tensor(correct).bool(),
        formatted=torch.tensor(formatted).bool(),
        length=lengths,
    )


def test_the_cosine_ablation() -> None:
    config = LengthPenaltyConfig(group_size=4)
    found = after(config, outcomes([1, 1, 0, 1], [0, 2048, 100, 5000], [1] * 4))
    rewards_B = found["reward"]
    assert rewards_B.tolist() == pytest.approx([4, 4 * math.cos(math.pi / 4), 0, 0])
    expected_B = (rewards_B - rewards_B.mean()) / (rewards_B.std() + 1e-6)
    assert torch.allclose(found["advantage"], expected_B)
    unclosed = outcomes([1] * 4, [10] * 4, [0, 1, 1, 1])
    assert after(config, unclosed, "reward")["reward"][0] == 0
