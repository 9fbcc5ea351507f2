"""The search families: reach, maze and sudoku."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.arithmetic import calculate
from ponder.tasks.maze import MAZE, rings
from ponder.tasks.problems import Split, draw, split_of
from ponder.tasks.reach import REACH_TASKS, attempts, hits, level
from ponder.tasks.sudoku import SUDOKU, solutions
from ponder.tasks.worked import WorkedTask

SEARCH = (*REACH_TASKS, MAZE, SUDOKU)
tasks = st.sampled_from(SEARCH)
seeds = st.integers(0, 2**32)


def levels(task: WorkedTask, seed: int) -> int:
    return Random(seed).choice(task.difficulties)


@given(tasks, seeds)
def test_a_problem_is_a_function_of_the_seed(task: WorkedTask, seed: int) -> None:
    difficulty = levels(task, seed)
    worked = task.work(Random(seed), difficulty)
    assert worked == task.work(Random(seed), difficulty)
    assert worked.problem == task.sample(Random(seed), difficulty)
    assert (worked.problem.family, worked.problem.difficulty) == (task.name, difficulty)
    assert worked.search
    assert worked.steps[-1].best == worked.problem.answer
    assert task.verify(worked.problem, f"The answer is {worked.problem.answer}.")
    assert task.verify(worked.problem, worked.problem.answer)
    assert not task.verify(worked.problem, "The answer is 1.")
    assert not task.verify(worked.problem, "")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("task", SEARCH, ids=lambda task: task.name)
def test_every_difficulty_has_problems_in_every_split(task: WorkedTask, split: Split) -> None:
    for difficulty in task.difficulties:
        assert split_of(draw(task, Random(0), difficulty, split)) == split


@given(st.sampled_from(REACH_TASKS), seeds)
def test_an_attempt_fails_or_is_the_last(task: WorkedTask, seed: int) -> None:
    worked = task.work(Random(seed), levels(task, seed))
    wanted = worked.problem.evidence["metadata"]
    *dead, found = [step.text for step in worked.steps]
    assert all(text.endswith(", no") for text in dead)
    assert len(set(dead)) == len(dead)
    assert found.endswith(f" = {wanted['target']}, yes")
    for text in dead:
        made = re.search(r"(\d+) and (\d+) make ([\d, ]+), no", text)
        assert made is not None
        a, b = int(made[1]), int(made[2])
        assert wanted["target"] not in (a + b, a - b, a * b, a / b)
        quotient = [a // b] if b > 1 and a % b == 0 else []
        values = [value for value in (a + b, a - b, a * b, *quotient) if value > 0]
        assert [int(value) for value in made[3].split(", ")] == values
    value, numbers = calculate(worked.problem.answer)
    assert (value, sorted(numbers)) == (wanted["target"], sorted(wanted["numbers"]))


def test_an_expression_has_to_use_every_number_once() -> None:
    task = REACH_TASKS[0]
    problem = task.sample(Random(0), 1)
    for wrong in (f"({problem.answer}) * 1", f"{problem.answer} + 0", "18", "8 +", "2 ** 3"):
        assert not task.verify(problem, f"The answer is {wrong}.")


def test_difficulty_counts_the_attempts_that_succeed() -> None:
    tried = attempts((4, 6, 7))
    assert sum(hits(attempt, 42) is not None for attempt in tried) == 0
    of = sum(hits(attempt, 31) is not None for attempt in tried)
    assert 2 ** level((4, 6, 7), 31) <= len(tried) / of < 2 ** (level((4, 6, 7), 31) + 1)
    assert level((1, 1, 1), 24) == 0


@given(seeds)
def test_a_flood_finds_the_shortest_way_and_never_overestimates(seed: int) -> None:
    worked = MAZE.work(Random(seed), levels(MAZE, seed))
    bests = [int(step.best or 0) for step in worked.steps]
    assert bests == sorted(bests)
    assert len(worked.steps) - 1 == int(worked.problem.answer)
    fields = [field for step in worked.steps for field in re.findall(r"[a-e]\d", step.text)]
    assert len(set(fields)) == len(fields)
    assert not set(fields) & set(worked.restated.partition("walls ")[2].split())


def test_rings_go_around_walls() -> None:
    assert rings(3, frozenset({(0, 1), (1, 1)}), (0, 0)) == [
        [(0, 0)],
        [(1, 0)],
        [(2, 0)],
        [(2, 1)],
        [(2, 2)],
        [(1, 2)],
        [(0, 2)],
    ]


@given(seeds)
def test_a_sudoku_has_one_solution(seed: int) -> None:
    problem = SUDOKU.sample(Random(seed), levels(SUDOKU, seed))
    cells = re.findall(r"[1-4_](?=[ .])", problem.question.partition("4 x 4")[2])
    fitting = [
        grid
        for grid in solutions()
        if all(cell in ("_", str(n)) for cell, n in zip(cells, grid, strict=True))
    ]
    assert [str(n) for n in fitting[0]] == re.findall(r"\d", problem.answer)
    assert len(fitting) == 1


def test_there_are_288_solutions() -> None:
    assert len(set(solutions())) == 288
