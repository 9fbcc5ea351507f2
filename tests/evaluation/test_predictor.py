"""A budget for each prompt, predicted from other prompts, beside the task's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.evaluation.curves import Row
from ponder.evaluation.predictor import (
    MARGINS,
    ByPrompt,
    Example,
    Floats,
    LogisticPredictor,
    budgets,
    by_prompt,
    embedding,
)
from ponder.server.settings import BUNDLED_MODEL

BUDGETS = (0, 64, 256)


def example(number: int, needed: int) -> Example:
    """A prompt that says how much thought it needs, and is right from there on."""
    row = Row(
        f"p{number}",
        {budget: float(budget >= needed) for budget in BUDGETS},
        {budget: 10.0 + budget for budget in BUDGETS},
        seeds=1,
    )
    return Example(f"{needed:3} {number:4}", row)


def told(prompt: str) -> Floats:
    """An embedding that says what is needed."""
    needed = prompt.split(maxsplit=1)[0]
    return np.array([float(needed == str(budget)) for budget in BUDGETS])


def silent(prompt: str) -> Floats:
    """An embedding that says nothing."""
    return np.zeros(2)


def mixed(n: int, first: int = 0) -> list[Example]:
    """Half of them need 64 tokens, half 256."""
    return [example(first + number, (64, 256)[number % 2]) for number in range(n)]


def test_what_a_prompt_says_is_learnt_from_others() -> None:
    predictor = LogisticPredictor(told)
    easy, hard = predictor.predict([" 64    x", "256    x"], mixed(200))
    assert easy[0] < 0.1 and hard[0] < 0.1
    assert easy[64] > 0.9 and hard[64] < 0.1
    assert easy[256] > 0.9 and hard[256] > 0.9


def test_a_prompt_that_says_nothing_gets_the_mean() -> None:
    (found,) = LogisticPredictor(silent).predict([" 64    5"], mixed(100))
    assert found[64] == pytest.approx(0.5, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 64, 256, 999]), min_size=2, max_size=30))
def test_chances_are_chances_whatever_the_history(needs: list[int]) -> None:
    history = [example(number, needed) for number, needed in enumerate(needs)]
    for embed in (told, silent):
        for chances in LogisticPredictor(embed).predict([" 64    x", "  0    y"], history):
            assert set(chances) == set(BUDGETS)
            assert all(0 <= chance <= 1 for chance in chances.values())


def test_it_pays_where_prompts_tell_what_they_need() -> None:
    found = by_prompt(mixed(400), mixed(400, 400), 256, LogisticPredictor(told))
    assert found is not None and found.pays
    assert found.difference.mean == 0
    assert found.tokens.mean == pytest.approx((74 + 266) / 2 / 266)


def test_it_does_not_pay_where_prompts_tell_nothing() -> None:
    found = by_prompt(mixed(400), mixed(400, 400), 256, LogisticPredictor(silent))
    assert found is not None and not found.pays
    assert (found.difference.mean, found.tokens.mean) == (0, 1)


def test_a_budget_is_told_for_every_prompt() -> None:
    asked = mixed(4, 400)
    found = budgets(mixed(400), [each.prompt for each in asked], 256, LogisticPredictor(told))
    assert found == (MARGINS[0], [64, 256, 64, 256])


def test_few_prompts_show_nothing() -> None:
    assert by_prompt(mixed(40), mixed(40, 40), 256, LogisticPredictor(told)) is None


class Cheat:
    """Knows no outcome but those of its history, or fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict(
        self, prompts: Sequence[str], history: Sequence[Example]
    ) -> list[Mapping[int, float]]:
        assert not set(prompts) & {each.prompt for each in history}
        self.asked += prompts
        return [dict.fromkeys(BUDGETS, 1.0) for _ in prompts]


def test_no_prompt_is_predicted_from_itself() -> None:
    cheat = Cheat()
    choosing, reporting = mixed(7), mixed(5, 7)
    assert by_prompt(choosing, reporting, 0, cheat) is None  # 7 prompts prove nothing
    assert sorted(cheat.asked) == sorted(each.prompt for each in choosing)


def test_the_widest_safe_margin_is_taken() -> None:
    """All chances are equal: the least budget is taken at every margin, and is `auto`."""
    found = by_prompt(mixed(400), mixed(400, 400), 0, Cheat())
    assert isinstance(found, ByPrompt)
    assert (found.margin, found.tokens.mean, found.pays) == (MARGINS[0], 1.0, False)


def test_a_checkpoint_embeds_prompts(tmp_path: Path) -> None:
    embed = embedding(Path(BUNDLED_MODEL))
    assert embed is not None
    assert embed("What is 2 + 2?").shape == (160,)
    assert not np.allclose(embed("What is 2 + 2?"), embed("What is the root of 9?"))
    assert embedding(tmp_path) is None
