import pytest

from ponder.training.method.grpo import GrpoConfig
from training.method.scored import after, scored


def test_correct_against_wrong() -> None:
    correct = [True, False, False, False, True, True, True, True]
    found = after(GrpoConfig(group_size=4), scored([4, 4], correct=correct))
    assert found["reward"].tolist() == [1, 0, 0, 0, 1, 1, 1, 1]
    # Mean 1/4; the unbiased std of (1, 0, 0, 0) is 1/2.
    expected = [1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0]
    assert found["advantage"].tolist() == pytest.approx(expected, 1e-5)


def test_groups_of_any_size() -> None:
    found = after(GrpoConfig(), scored([2, 3, 1], correct=[True, False, True, False, False, True]))
    assert found["advantage"].tolist() == pytest.approx(
        [2**-0.5, -(2**-0.5), 2 / 3**0.5, -(3**-0.5), -(3**-0.5), 0], 1e-5
    )
