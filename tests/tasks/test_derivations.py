from random import Random

import pytest

from ponder.tasks.derivations import DERIVATIONS, TAUGHT_GYM, multiplied, taught
from ponder.tasks.sources import find_tasks
from ponder.tasks.verifiers import verify
from ponder.tasks.worked import TaughtTask


@pytest.fixture(scope="module")
def derived() -> tuple[TaughtTask, ...]:
    return taught(find_tasks(TAUGHT_GYM))


def test_every_equality_is_true_and_the_answer_verifies(derived: tuple[TaughtTask, ...]) -> None:
    assert len(derived) == len(DERIVATIONS) >= 6
    for task in derived:
        for difficulty in task.difficulties:
            for seed in range(20):
                worked = task.work(Random(seed), difficulty)
                assert worked.problem == task.sample(Random(seed), difficulty)
                assert worked.steps[-1].best == worked.problem.answer
                assert verify(worked.problem, f"The answer is {worked.problem.answer}.")
                for step in worked.steps:
                    left, equals, right = step.text.rpartition(": ")[2].partition(" = ")
                    assert not equals or eval(left) == int(right), step.text


@pytest.mark.parametrize(("a", "b"), [(7, 8), (98, 28), (12, 10), (45, 0), (103, 207)])
def test_a_product_is_added_up_by_places(a: int, b: int) -> None:
    lines = multiplied(a, b)
    assert lines[-1].endswith(f" = {a * b}")
    assert all(eval(line.replace("=", "==")) for line in lines)


def test_a_task_without_derivations_is_named() -> None:
    with pytest.raises(ValueError, match="calculator has no written solutions"):
        taught(find_tasks(["tiny", "calculator"]))
    with pytest.raises(ValueError, match="basic_arithmetic has no written solutions"):
        taught(find_tasks(["reasoning-gym:basic_arithmetic"]))
