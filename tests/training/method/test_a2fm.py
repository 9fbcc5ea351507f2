from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.problems import Problem
from ponder.training.method.a2fm import A2fm
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.presets import Method
from ponder.training.rollout.drive import pull
from ponder.training.rollout.plans import Reader
from ponder.training.rollout.rows import pack
from ponder.training.run.recipe import RecipeError, find_recipe, load_recipe
from training.method.scored import context, scored

rollout = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.floats(-2, 2, width=16))


@given(
    st.lists(st.lists(rollout, min_size=1, max_size=8), min_size=1, max_size=4),
    st.floats(0.1, 1),
    st.floats(0.5, 4),
)
def test_the_slow_way_says_the_same(
    groups: list[list[tuple[bool, bool, bool, float]]], easy: float, power: float
) -> None:
    expected = []
    for group in groups:
        at_once = [right for right, forced, thought, _ in group if forced and not thought]
        p = fmean(at_once) if at_once else 0.0
        for _, _, thought, reward in group:
            expected.append(reward * (1 - p**power) if p >= easy and thought else reward)
    correct, forced, thought, reward = zip(*(r for g in groups for r in g), strict=True)
    seen = scored(
        [len(g) for g in groups], correct=correct, forced=forced, thought=thought, reward=reward
    )
    found = A2fm(easy=easy, power=power)(seen, context())["reward"].tolist()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_wrong_answer_at_once_makes_a_prompt_less_easy() -> None:
    thought, forced = torch.tensor([False] * 4 + [True]), torch.tensor([True] * 4 + [False])
    for right, price in ((4, 0.0), (3, 1 - 0.75**2), (2, 1.0), (0, 1.0)):
        correct = torch.tensor([n < right for n in range(4)] + [True])
        assert A2fm().share(correct, forced, thought)[4].item() == pytest.approx(price)


def test_modes_are_forced_by_what_stands_at_the_head(reader: Reader) -> None:
    config = GrpoConfig(
        group_size=4, longest=30, add=[{"a2fm": {"instant": 1, "thinking": 1, "opening": "so"}}]
    )
    plan = Method.of(config).plan(config, reader)
    encode, eos = reader.tokenizer.encode, min(reader.tokenizer.eos_token_ids)
    close, end = reader.form.close.ids, encode(reader.form.end.text)
    prompt = reader.prompt(Problem("t:0", "t", 1, "What is 1 + 1?", "2"), "key")

    def sampler(
        whole: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        heads = [tuple(ids[len(prompt.ids) :]) for ids in whole]
        assert heads == [tuple(close), tuple(encode("so")), (), ()]
        thought = [*encode(" and and"), *end, *encode("2"), eos]
        return [[*encode("2"), eos], thought, [*end, *encode("2"), eos], thought]

    found = pull(plan.rollouts([prompt], [4]), sampler)
    columns = plan.columns(found)
    assert columns["forced"].tolist() == [True, True, False, False]
    assert columns["thought"].tolist() == [False, True, False, True]
    assert columns["formatted"].tolist() == [True] * 4
    assert [r.answers[0].text.strip() for r in found if r.answers] == ["2"] * 4
    for rollout_, head in zip(found, [len(close), len(encode("so")), 0, 0], strict=True):
        row = pack(rollout_, torch.ones(()), None, {})
        assert list(row.learnt) == [False] * head + [True] * (len(row.learnt) - head)
    again = [plan.read(rollout_) for rollout_ in found]
    assert [r.answers[0].text.strip() for r in again if r.answers] == ["2"] * 4


def test_a_group_that_is_all_forced_is_said() -> None:
    assert "lower a2fm.instant" in next(A2fm().notes(6)) and not list(A2fm().notes(7))


def test_a_group_smaller_than_what_is_forced_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"3 \+ 3 of 4 are forced; lower a2fm.instant"):
        load_recipe(find_recipe("tiny-grpo"), ["method.group_size=4", "method.add=[{a2fm: {}}]"])
