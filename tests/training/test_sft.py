import pytest
import torch

from ponder.training.examples import Example
from ponder.training.recipe import SftRecipe
from ponder.training.sft import SftResult, batch_loss, collate, lr_schedule, train_sft


def test_a_run_is_a_function_of_its_recipe(recipe: SftRecipe, trained: SftResult) -> None:
    one, two = trained, train_sft(recipe, progress=False)
    assert one.losses == two.losses
    assert len(one.losses) == 3
    assert [step for step, _ in one.validation] == [3]
    for (name, left), right in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name
    other = train_sft(recipe.model_copy(update={"seed": 6}), progress=False)
    assert other.losses != one.losses


def test_padding_changes_no_loss(trained: SftResult) -> None:
    short = Example([5, 6, 7, 8], [False, False, True, True])
    long = Example([9, 10, 11, 12, 13, 14, 15], [False] * 7)
    with torch.no_grad():
        assert batch_loss(trained.model, [short]).item() == pytest.approx(
            batch_loss(trained.model, [short, long]).item(), abs=1e-5
        )


def test_collate_pads_on_the_right() -> None:
    ids_B_T, learnt_B_T = collate([Example([1, 2], [False, True]), Example([3], [True])])
    assert ids_B_T.tolist() == [[1, 2], [3, 0]]
    assert learnt_B_T.tolist() == [[False, True], [True, False]]


def test_the_learning_rate_rises_then_falls() -> None:
    factor = lr_schedule(warmup=4, steps=100)
    rates = [factor(step) for step in range(101)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[100] == pytest.approx(0.02)
