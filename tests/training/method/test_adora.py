from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.method.adora import Adora
from ponder.training.method.brpo import BrpoConfig
from ponder.training.method.presets import Method
from training.method.scored import context, scored


@pytest.mark.parametrize(
    ("correct", "length", "truncated", "longer", "shorter"),
    [
        ([1, 1, 0, 0], [100, 300, 150, 250], [0, 0, 0, 0], 1.0, 1.0),
        ([1, 1, 0, 0], [100, 190, 150, 250], [0, 0, 0, 0], 0.1, 1.0),
        ([1, 1, 0, 0], [210, 300, 150, 250], [0, 0, 0, 0], 1.0, 0.1),
        ([1, 1, 0, 0], [200, 200, 150, 250], [0, 0, 0, 0], 0.1, 0.1),
        ([1, 0, 0, 0], [200, 150, 150, 900], [0, 0, 0, 1], 1.0, 0.1),
        ([0, 0, 0, 0], [200, 150, 150, 900], [0, 0, 0, 1], 1.0, 1.0),
        ([1, 1, 1, 1], [200, 150, 150, 900], [0, 0, 0, 0], 0.1, 0.1),
        ([1, 0, 0, 0], [200, 900, 900, 900], [0, 1, 1, 1], 0.1, 0.1),
    ],
)
def test_the_groups_of_the_published_rule(
    correct: list[int], length: list[int], truncated: list[int], longer: float, shorter: float
) -> None:
    columns = (torch.tensor(correct).bool(), torch.tensor(length), torch.tensor(truncated).bool())
    assert Adora().of_group(*columns).tolist() == pytest.approx([longer] * 4)
    assert Adora(favour="shorter").of_group(*columns).tolist() == pytest.approx([shorter] * 4)


rollout = st.tuples(st.booleans(), st.integers(1, 50), st.booleans(), st.floats(-5, 5, width=16))


@given(st.lists(st.lists(rollout, min_size=1, max_size=8), min_size=1, max_size=5))
def test_the_slow_way_says_the_same(groups: list[list[tuple[bool, int, bool, float]]]) -> None:
    """The weight function as it is published, with its infinities."""
    expected, inf = [], float("inf")
    for group in groups:
        longest = max((n for right, n, _, _ in group if right), default=-inf)
        wrong = [n for right, n, cut, _ in group if not right and not cut]
        mean = fmean(wrong) if wrong else inf
        whole = longest > mean or not any(right for right, *_ in group)
        expected += [a * (1.0 if whole else 0.1) for *_, a in group]
    correct, length, truncated, advantage = zip(*(r for g in groups for r in g), strict=True)
    seen = scored(
        [len(group) for group in groups],
        correct=correct,
        length=length,
        truncated=truncated,
        advantage=advantage,
    )
    assert Adora()(seen, context())["advantage"].tolist() == pytest.approx(expected, rel=1e-5)


def test_thoughts_that_are_cut_have_no_correct_response() -> None:
    with pytest.raises(ValueError, match=r"with brpo, Adora .at weight. reads correct"):
        Method.of(BrpoConfig(add=[{"adora": {}}]))
