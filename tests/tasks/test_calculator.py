import json
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.arithmetic import calculate
from ponder.tasks.calculator import CALCULATE, DIFFICULTIES, CalculatorTask, written_call
from ponder.tasks.problems import Problem
from ponder.tasks.sources import find_tasks
from ponder.tasks.verifiers import verify

TASK = CalculatorTask()
levels = st.sampled_from(DIFFICULTIES)
seeds = st.integers(0, 2**32)


def call(expression: str, name: str = "calculate", **others: str) -> str:
    return written_call(name, json.dumps({"expression": expression, **others}))


@given(levels, seeds)
def test_a_problem_is_a_function_of_the_seed(level: int, seed: int) -> None:
    problem = TASK.sample(Random(seed), level)
    assert problem == TASK.sample(Random(seed), level)
    assert (problem.family, problem.difficulty) == ("calculator", level)
    assert problem.id == f"calculator:{problem.evidence.replace(' ', '')}"
    assert problem.tools == (CALCULATE,)


@given(levels, seeds)
def test_a_problem_has_its_value_and_as_many_operators_as_its_difficulty(
    level: int, seed: int
) -> None:
    problem = TASK.sample(Random(seed), level)
    value, numbers = calculate(problem.evidence)
    assert str(value) == problem.answer
    assert len(numbers) == level + 1


@given(levels, seeds)
def test_no_problem_is_for_the_head(level: int, seed: int) -> None:
    expression = TASK.sample(Random(seed), level).evidence
    parts = expression.replace("(", "").replace(")", "").split(" ")
    numbers, signs = [int(part) for part in parts[::2]], parts[1::2]
    products = [
        min(pair) for sign, pair in zip(signs, pairwise(numbers), strict=True) if sign in "*/"
    ]
    assert max(numbers) >= 1000 or max(products) >= 13


@given(levels, seeds)
def test_the_expression_asked_for_is_right_and_its_neighbour_is_not(level: int, seed: int) -> None:
    problem = TASK.sample(Random(seed), level)
    for judge in (TASK.verify, verify):
        assert judge(problem, call(problem.evidence))
        assert judge(problem, f"Let me see.\n{call(f'({problem.evidence}) * 1')}")
        assert not judge(problem, call(f"{problem.evidence} + 1"))
        assert not judge(problem, f"The answer is {problem.answer}.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "13 * 14",
        call("13 * 14", "compute"),
        call("13 * 14", unit="pens"),
        call("13 * 14") + call("13 * 14"),
        call("13 * 14").removesuffix("\n</tool_call>"),
        call("13 * "),
        call("13 * 14 / 0"),
        call("13**99**99"),
        call("__import__('os').abort()"),
        written_call("calculate", '"13 * 14"'),
        written_call("calculate", '{"expression": 182}'),
        written_call("calculate", '{"expression": '),
        "<tool_call>" + "[" * 100_000 + "</tool_call>",
    ],
)
def test_what_is_no_call_of_the_calculator_is_wrong(text: str) -> None:
    problem = Problem("calculator:13*14", "calculator", 1, "?", "182", "call")
    assert verify(problem, call("14 * 13"))
    assert not verify(problem, text)
    assert not TASK.verify(problem, text)


def test_it_is_found_by_name_and_is_none_of_the_tiny_families() -> None:
    assert find_tasks(["calculator"]) == (TASK,)
    assert TASK not in find_tasks(["tiny"])


def test_an_unknown_difficulty_is_refused() -> None:
    with pytest.raises(ValueError, match="not 5"):
        TASK.sample(Random(0), 5)
