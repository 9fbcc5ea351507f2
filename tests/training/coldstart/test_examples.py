from collections import defaultdict
from itertools import islice
from random import Random
from statistics import fmean
from typing import Any

from ponder.evaluation.protocol import MINIMAL_HINT
from ponder.training.coldstart.examples import Example, ExampleWriter, batches
from ponder.training.coldstart.thoughts import CLOSE_TEXT
from ponder.training.run.recipe import SftRecipe


def written(tokenizer: Any, recipe: SftRecipe, n: int, **mix: float) -> list[Example]:
    rng = Random(2)
    writer = ExampleWriter(tokenizer, recipe.traces.model_copy(update=mix), "train")
    return [writer.write(rng, terse=False) for _ in range(n)]


def split(tokenizer: Any, example: Example) -> tuple[str, list[int], str]:
    """Prompt with the opened thought, the ids of hint and thought, and the answer."""
    start = (
        len(example.ids) - 1 - example.ids[::-1].index(tokenizer.convert_tokens_to_ids("<think>"))
    )
    close = tokenizer.encode(CLOSE_TEXT)
    ends = [i for i in range(start, len(example.ids)) if example.ids[i : i + 3] == close]
    assert len(ends) == 1
    thought = example.ids[start + 2 : ends[0]]
    prompt = tokenizer.decode(example.ids[: start + 2])
    return prompt, thought, tokenizer.decode(example.ids[ends[0] + len(close) :])


def test_parts_are_joined_by_id(tokenizer: Any, recipe: SftRecipe) -> None:
    for example in written(tokenizer, recipe, 200):
        prompt, _, answer = split(tokenizer, example)
        assert prompt.endswith("<|im_start|>assistant\n<think>\n")
        assert answer.startswith("The answer is ")
        assert answer.endswith(".<|im_end|>")
        assert not any(example.learnt[: len(tokenizer.encode(prompt))])
        assert example.learnt[-1]


def test_only_a_natural_close_is_learnt(tokenizer: Any, recipe: SftRecipe) -> None:
    close = tokenizer.encode(CLOSE_TEXT)
    for share, learnt in ((0.0, True), (1.0, False)):
        for example in written(tokenizer, recipe, 50, cut=share):
            at = max(i for i in range(len(example.ids)) if example.ids[i : i + 3] == close)
            assert example.learnt[at : at + len(close)] == [learnt] * len(close)


def test_cut_at_zero_leaves_no_thought(tokenizer: Any, recipe: SftRecipe) -> None:
    mix = {"cut": 1.0, "cut_at_zero": 1.0, "hinted": 0.0, "minimal": 0.0}
    for example in written(tokenizer, recipe, 50, **mix):
        assert split(tokenizer, example)[1] == []


def test_hints_hold_the_thought_and_say_something_of_its_length(
    tokenizer: Any, recipe: SftRecipe
) -> None:
    lengths: dict[str, list[int]] = defaultdict(list)
    for example in written(tokenizer, recipe, 600, cut=0.0):
        _, thought, _ = split(tokenizer, example)
        text = tokenizer.decode(thought)
        hint = text.split("\n", 1)[0] + "\n" if text.startswith("I will answer") else ""
        lengths[hint].append(len(thought) - len(tokenizer.encode(hint)))
    for hint, found in lengths.items():
        if "within" in hint:
            budget = int(hint.split("within ")[1].split()[0])
            smaller = max((b for b in recipe.traces.budgets if b < budget), default=0)
            assert all(smaller < length <= budget for length in found)
    assert fmean(lengths[MINIMAL_HINT]) < fmean(lengths[""])
    assert 0.3 < sum(len(v) for h, v in lengths.items() if "within" in h) / 600 < 0.6


def test_batches_fit_and_repeat_from_a_seed(tokenizer: Any, recipe: SftRecipe) -> None:
    def first() -> list[list[Example]]:
        writer = ExampleWriter(tokenizer, recipe.traces, "train")
        return list(islice(batches(writer, Random(9), 4096, terse_steps=10), 12))

    made = first()
    assert made == first()
    assert all(len(batch) * max(len(e.ids) for e in batch) <= 4096 for batch in made)


def test_openings_are_told_a_budget_that_holds_their_thought(
    tokenizer: Any, recipe: SftRecipe
) -> None:
    told, replies = set(), set()
    for example in written(tokenizer, recipe, 600, cut=0.0, everyday=1.0):
        prompt, thought, answer = split(tokenizer, example)
        assert prompt.endswith("<|im_start|>assistant\n<think>\n")
        replies.add(answer.split()[0])
        text = tokenizer.decode(thought)
        if "within" in text:
            hint = text.split("\n", 1)[0] + "\n"
            budget = int(hint.split("within ")[1].split()[0])
            assert len(thought) - len(tokenizer.encode(hint)) <= budget
            told.add(budget)
    assert told == set(recipe.traces.budgets)
    assert {"The", "Hello!", "I"} <= replies
