import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.method.aspo import Aspo
from ponder.training.method.brpo import BrpoConfig
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.hbpo import HbpoConfig
from training.method.scored import after, context, scored


def test_the_worked_group() -> None:
    """p̄ = 250, L̄ = 270: gains of ±1.111 and ±.370, held to 1.05 and .35."""
    seen = scored(
        [4],
        thinking=[100, 200, 300, 400],
        length=[120, 220, 320, 420],
        advantage=[1.5, -0.5, -0.5, -0.5],
    )
    found = Aspo()(seen, context())
    assert found["advantage"].tolist() == pytest.approx([2.55, -0.15, -0.85, -0.85])
    assert found["advantage_length"].tolist() == pytest.approx([1.05, 0.35, -0.35, -0.35])
    wide = Aspo(k=0.99)(seen, context())["advantage_length"].tolist()
    assert wide == pytest.approx([10 / 9, 10 / 27, -10 / 27, -0.495])


def test_every_group_has_its_own_mean() -> None:
    seen = scored(
        [2, 3], thinking=[10, 30, 5, 5, 5], length=[20, 40, 9, 9, 9], advantage=[9.0, 9, 1, 1, 1]
    )
    gains = Aspo()(seen, context())["advantage_length"].tolist()
    assert gains == pytest.approx([2 / 3, -2 / 3, 0, 0, 0])


def test_segments_of_a_thought_are_held_each_by_its_own_advantage() -> None:
    seen = scored([2], thinking=[10, 30], length=[20, 40], advantage=[[0.1, 9.0], [0.0, -0.2]])
    found = Aspo()(seen, context())["advantage"]
    expected = torch.tensor([[0.17, 9 + 2 / 3], [0.0, -0.34]])
    assert torch.allclose(found, expected)


rollout = st.tuples(st.integers(0, 5000), st.integers(0, 200), st.floats(-5, 5, width=32))


@given(st.lists(rollout, min_size=1, max_size=12), st.floats(-10, 0), st.floats(0, 0.99))
def test_a_gain_is_bounded_and_turns_no_sign(
    group: list[tuple[int, int, float]], delta: float, k: float
) -> None:
    thinking, answer, given_ = (torch.tensor(column) for column in zip(*group, strict=True))
    seen = scored([len(group)], thinking=thinking, length=thinking + answer, advantage=given_)
    found_B = Aspo(delta=delta, k=k)(seen, context())["advantage"]
    before_B = seen["advantage"]
    rounding_B = 1e-6 * before_B.abs() + 1e-7
    assert ((found_B - before_B).abs() <= k * before_B.abs() + rounding_B).all()
    assert (found_B.sign() == before_B.sign()).all()
    mean = thinking.double().mean()
    assert (found_B >= before_B)[thinking <= mean].all()
    assert (found_B <= before_B)[thinking >= mean].all()


@given(st.integers(2, 8))
def test_a_group_that_is_all_correct_is_left_alone(size: int) -> None:
    config = GrpoConfig(group_size=size, add=[{"aspo": {}}])
    lengths = list(range(10, 10 + size))
    seen = scored([size], correct=[True] * size, thinking=lengths, length=lengths)
    assert after(config, seen)["advantage"].abs().max() == 0


def test_it_follows_the_advantage_of_any_method() -> None:
    lengths = torch.arange(16.0) * 50
    seen = scored(
        [16],
        correct=torch.arange(16) % 3 > 0,
        formatted=torch.ones(16).bool(),
        length=lengths,
        thinking=lengths,
        budget=torch.tensor(HbpoConfig().row_budgets),
    )
    aspo = Aspo(k=0.5)
    for config in (GrpoConfig(), HbpoConfig()):
        added = config.model_validate({**config.model_dump(), "add": [{"aspo": {"k": 0.5}}]})
        plain, found = after(config, seen), after(added, seen)
        assert torch.equal(found["advantage"], aspo(plain, context())["advantage"])
        assert not torch.equal(found["advantage"], plain["advantage"])


def test_summaries_are_not_asked_for_the_length_of_their_thought() -> None:
    config = BrpoConfig(group_size=2, budgets=(4, 8), summaries=2)
    added = config.model_validate({**config.model_dump(), "add": [{"aspo": {}}]})
    correct_BmA = torch.tensor([[[1, 0], [1, 1]], [[0, 0], [1, 0]]]).bool()
    cuts = [[4, 8], [4, 5]]
    seen = scored([2], summary_correct=correct_BmA, length=[8, 5], thinking=[8, 4], cut=cuts)
    plain, found = after(config, seen), after(added, seen)
    assert (found["advantage"] != plain["advantage"]).any()
    assert torch.equal(found["branch_advantage"], plain["branch_advantage"])
