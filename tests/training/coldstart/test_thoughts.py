from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.tiny import DIFFICULTIES, TINY_TASKS
from ponder.tasks.verify import same_number
from ponder.tasks.worked import WorkedTask
from ponder.training.coldstart.thoughts import (
    Style,
    answer_text,
    best_guess,
    smallest_budget,
    write_thought,
)

tasks = st.sampled_from(TINY_TASKS)
levels = st.sampled_from(DIFFICULTIES)
seeds = st.integers(0, 2**32)
styles: st.SearchStrategy[Style] = st.sampled_from(["terse", "plain", "verbose"])
BUDGETS = (40, 80, 160, 200)


@given(tasks, levels, seeds, styles, st.integers(0, 4))
def test_a_whole_thought_ends_in_an_answer_that_verifies(
    task: WorkedTask, level: int, seed: int, style: Style, checks: int
) -> None:
    rng = Random(seed)
    worked = task.work(rng, level)
    pieces = write_thought(worked, style, checks, rng)
    whole = sum(len(piece.text) for piece in pieces)
    guess = best_guess(pieces, whole, worked.problem.answer)
    assert task.verify(worked.problem, answer_text(guess))
    if style != "terse":
        assert same_number(worked.problem.answer, pieces[-1].text)


@given(levels, seeds, st.floats(0, 1))
def test_a_cut_search_answers_with_its_best_so_far(level: int, seed: int, share: float) -> None:
    rng = Random(seed)
    worked = TINY_TASKS[3].work(rng, level)
    pieces = write_thought(worked, "plain", 0, rng)
    text = "".join(piece.text for piece in pieces)
    cut = int(share * len(text))
    seen = text[:cut].split(".\n")[:-1]
    bests = [line.rsplit("best ", 1)[1] for line in seen if "best " in line]
    expected = bests[-1] if bests else worked.problem.answer
    assert best_guess(pieces, cut, worked.problem.answer) == expected


@given(tasks, levels, seeds)
def test_checks_lengthen_a_thought_and_change_nothing_else(
    task: WorkedTask, level: int, seed: int
) -> None:
    worked = task.work(Random(seed), level)
    short = "".join(p.text for p in write_thought(worked, "verbose", 0, Random(seed)))
    long = "".join(p.text for p in write_thought(worked, "verbose", 3, Random(seed)))
    assert long.startswith(short)
    assert long.count(", ".join(worked.checks)) >= 3


@pytest.mark.parametrize(
    ("length", "budget"), [(0, 40), (40, 40), (41, 80), (160, 160), (161, 200), (201, None)]
)
def test_a_hint_is_the_smallest_budget_that_holds_the_thought(
    length: int, budget: int | None
) -> None:
    assert smallest_budget(length, BUDGETS) == budget
