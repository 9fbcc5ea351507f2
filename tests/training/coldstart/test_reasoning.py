import re
from collections import Counter
from random import Random
from statistics import fmean
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ponder.tasks.maze import MAZE
from ponder.tasks.reach import REACH_TASKS
from ponder.tasks.sudoku import SUDOKU
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.worked import WorkedTask
from ponder.training.coldstart.examples import ExampleWriter
from ponder.training.coldstart.objects import Object
from ponder.training.coldstart.reasoning import merged, reason
from ponder.training.coldstart.slips import slipped
from ponder.training.run.recipe import RecipeError, SftRecipe, find_recipe, load_recipe
from training.coldstart.test_examples import split

tasks = st.sampled_from((*TINY_TASKS, *REACH_TASKS, MAZE, SUDOKU))
seeds = st.integers(0, 2**32)
EQUALITY = re.compile(r"(?<![\d*] )(?<![-+*/] )\b(\d+(?: [-+*/] \d+)+) = (-?\d+)")
SLOW = {"tasks": ("tiny", "search"), "minimal": 0.0, "longest": 1000}


def thought(task: WorkedTask, seed: int) -> tuple[str, str, str]:
    """A thought, what of it is learnt (its wrong numbers as `#`), and the answer."""
    rng = Random(seed)
    worked = task.work(rng, rng.choice(task.difficulties))
    pieces = reason(worked, rng)
    whole = "".join(piece.text for piece in pieces)
    learnt = "".join(piece.text if piece.learnt else " #" for piece in pieces)
    return whole, learnt, worked.problem.answer


@given(tasks, seeds)
def test_a_thought_ends_in_the_answer_and_repeats_from_a_seed(task: WorkedTask, seed: int) -> None:
    whole, _, answer = thought(task, seed)
    assert whole == thought(task, seed)[0]
    assert re.search(rf"(answer is|gives|it is) {re.escape(answer)}\.$", whole)


@given(tasks, seeds)
def test_every_equality_that_is_learnt_is_true(task: WorkedTask, seed: int) -> None:
    """Slips are masked, and what follows them is true of the wrong number."""
    _, learnt, _ = thought(task, seed)
    for left, right in EQUALITY.findall(learnt):
        assert eval(left) == int(right), learnt


@given(st.sampled_from(TINY_TASKS), seeds)
@example(next(task for task in TINY_TASKS if task.name == "largest"), 1283057)
def test_an_answer_is_settled_by_two_passes_or_by_a_sight_that_was_right(
    task: WorkedTask, seed: int
) -> None:
    whole, _, answer = thought(task, seed)
    values = re.findall(r"^So (-?\d+)(?:\.| again\.|,)", whole, re.MULTILINE)
    counts = Counter(values)
    confirmed = re.search(rf"So {answer}, as it seemed\.", whole)
    assert counts[answer] >= (1 if confirmed else 2)
    assert all(times == 1 for value, times in counts.items() if value != answer)


def test_sights_and_passes_deceive_as_often_as_they_should() -> None:
    learnt = [thought(TINY_TASKS[seed % 3], seed)[1] for seed in range(600)]
    sights = [re.search(r"(?:sight|like|is) #\.", text) is not None for text in learnt]
    slips = [" = #" in text for text in learnt]
    assert 0.3 < fmean(sights) < 0.5
    assert 0.3 < fmean(slips) < 0.95


@given(st.sampled_from(TINY_TASKS[:4]), seeds)
def test_a_slip_is_one_wrong_number(task: WorkedTask, seed: int) -> None:
    rng = Random(seed)
    worked = task.work(rng, rng.choice(task.difficulties))
    lines = [step.text for step in worked.steps]
    wrong = slipped(lines, worked.problem.answer, rng)
    assert wrong is not None
    assert len(wrong.lines) == len(lines)
    (at,) = [i for i, line in enumerate(wrong.lines) if line.wrong]
    assert [line.text for line in wrong.lines[:at]] == lines[:at]
    assert wrong.lines[at].text + wrong.lines[at].wrong + wrong.lines[at].rest != lines[at]
    if task.name != "largest":
        assert wrong.answer != worked.problem.answer
    ending = wrong.lines[-1].text + wrong.lines[-1].wrong + wrong.lines[-1].rest
    assert ending.endswith(f" {wrong.answer}")


def test_a_search_does_not_slip() -> None:
    worked = TINY_TASKS[4].work(Random(0), 3)
    lines = [step.text for step in worked.steps]
    assert slipped(lines, worked.problem.answer, Random(0)) is None


def test_two_steps_are_merged_where_the_second_goes_on() -> None:
    lines = ["37 + 48 = 85", "85 - 15 = 70", "70 + 2 = 72", "72 / 8 = 9"]
    assert merged(lines) == ["37 + 48 - 15 = 70", "70 + 2 = 72", "72 / 8 = 9"]
    assert merged(["4 * 4 = 16", "3 * 16 = 48"]) == ["4 * 4 = 16", "3 * 16 = 48"]


def test_hints_say_nothing_of_the_thought(tokenizer: Any, recipe: SftRecipe) -> None:
    rng = Random(2)
    writer = ExampleWriter(tokenizer, recipe.traces.model_copy(update=SLOW | {"cut": 0.0}), "train")
    lengths: dict[str, list[int]] = {}
    for _ in range(1500):
        _, ids, _ = split(tokenizer, writer.write(rng, terse=False))
        text = tokenizer.decode(ids)
        hint = text.split("\n", 1)[0] if text.startswith("I will answer") else ""
        lengths.setdefault(hint, []).append(len(text) - len(hint))
    assert len(lengths) == 1 + len(recipe.traces.budgets)
    assert 0.4 < 1 - len(lengths[""]) / 1500 < 0.6
    means = [fmean(found) for found in lengths.values()]
    assert max(means) < 1.35 * min(means)


def test_what_is_wrong_is_not_learnt(tokenizer: Any, recipe: SftRecipe) -> None:
    writer = ExampleWriter(tokenizer, recipe.traces.model_copy(update=SLOW | {"cut": 0.0}), "train")
    rng, masked = Random(3), 0
    for _ in range(100):
        example = writer.write(rng, terse=False)
        start = max(i for i, flag in enumerate(example.learnt[:-1]) if not flag)
        assert example.learnt[start + 1 :] == [True] * (len(example.ids) - start - 1)
        masked += tokenizer.decode([example.ids[start]]).strip().isdigit()
    assert masked > 20


def test_an_object_is_the_answer_where_one_is_asked_for_or_enforced(
    tokenizer: Any, recipe: SftRecipe
) -> None:
    """What a grammar begins unasked is read and not learnt; its value is."""
    mix = SLOW | {"cut": 0.0, "objects": 1.0, "tasks": ("tiny",)}
    writer = ExampleWriter(tokenizer, recipe.traces.model_copy(update=mix), "train")
    rng = Random(1)
    asked = enforced = 0
    for _ in range(60):
        example = writer.write(rng, terse=False)
        prompt, _, answer = split(tokenizer, example)
        found = re.fullmatch(r'\{"([a-z]+)": ?(\d+)\}<\|im_end\|>', answer)
        assert found
        ids = tokenizer.encode(answer, add_special_tokens=False)
        learnt = example.learnt[-len(ids) :]
        if "JSON" in prompt or "Give me {" in prompt:
            asked += 1
            assert all(learnt)
            assert found[1] == "answer" or f'"{found[1]}"' in prompt
        else:
            enforced += 1
            value = len(tokenizer.encode(f"{found[2]}}}", add_special_tokens=False))
            assert not learnt[0] and all(learnt[-value:])
    assert asked > 15 and enforced > 15
    assert Object().text("(1 + 2) * 8") == '{"answer": "(1 + 2) * 8"}'
    assert Object("sum", separators=(",", ":")).text("7") == '{"sum":7}'


def test_slow_thoughts_take_no_minimal_hints() -> None:
    with pytest.raises(RecipeError, match="minimal asks for short thoughts"):
        load_recipe(find_recipe("reasoner-sft"), ["traces.minimal=0.05"])
