import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.tiny import DIFFICULTIES, TINY_TASKS
from ponder.tasks.worked import WorkedTask

tasks = st.sampled_from(TINY_TASKS)
levels = st.sampled_from(DIFFICULTIES)
seeds = st.integers(0, 2**32)


def value(expression: str) -> int:
    """An expression of whole numbers with + and - alone, or one product or quotient."""
    left, operator, right = expression.rsplit(" ", 2) if " " in expression else ("", "", expression)
    if not operator:
        return int(right)
    a, b = value(left), int(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operator]


@given(tasks, levels, seeds)
def test_a_problem_is_a_function_of_the_seed(task: WorkedTask, level: int, seed: int) -> None:
    problem = task.sample(Random(seed), level)
    assert problem == task.sample(Random(seed), level)
    assert problem.family == task.name
    assert problem.difficulty == level
    assert problem.id.startswith(f"{task.name}:")


@given(tasks, levels, seeds)
def test_every_written_equality_is_true(task: WorkedTask, level: int, seed: int) -> None:
    worked = task.work(Random(seed), level)
    lines = [step.text for step in worked.steps] + list(worked.checks)
    for line in lines:
        left, _, right = line.partition(" = ")
        result = re.match(r"\d+", right)
        assert result is not None
        assert value(left) == int(result[0])


@given(tasks, levels, seeds)
def test_the_last_step_knows_the_answer(task: WorkedTask, level: int, seed: int) -> None:
    worked = task.work(Random(seed), level)
    assert worked.steps[-1].best == worked.problem.answer


@given(levels, seeds)
def test_chains_end_in_their_answer(level: int, seed: int) -> None:
    for task in TINY_TASKS[:3]:
        worked = task.work(Random(seed), level)
        assert worked.steps[-1].text.endswith(f" = {worked.problem.answer}")


@given(levels, seeds)
def test_the_largest_is_the_largest(level: int, seed: int) -> None:
    worked = TINY_TASKS[3].work(Random(seed), level)
    values = [value(e) for e in worked.restated.split(", ")]
    assert len(set(values)) == level + 1
    assert worked.problem.answer == str(max(values))
    bests = [int(step.best or 0) for step in worked.steps]
    assert bests == sorted(bests)


@given(levels, seeds)
def test_the_root_is_the_root(level: int, seed: int) -> None:
    problem = TINY_TASKS[4].sample(Random(seed), level)
    n, root = int(problem.id.removeprefix("root:")), int(problem.answer)
    assert root * root <= n < (root + 1) ** 2


def test_questions_come_in_several_phrasings() -> None:
    rng = Random(0)
    for task in TINY_TASKS:
        asked = {re.sub(r"[\d+\-* ,]+", "#", task.sample(rng, 1).question) for _ in range(200)}
        assert len(asked) >= 4


def test_an_unknown_difficulty_is_an_error() -> None:
    with pytest.raises(ValueError, match="difficulties"):
        TINY_TASKS[0].sample(Random(0), 8)


def test_verify_reads_the_final_number() -> None:
    problem = TINY_TASKS[0].sample(Random(0), 1)
    assert TINY_TASKS[0].verify(problem, f"The answer is {problem.answer}.")
    assert not TINY_TASKS[0].verify(problem, f"The answer is {problem.answer}1.")
    assert not TINY_TASKS[0].verify(problem, "")
