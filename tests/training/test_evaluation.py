import asyncio
import json
from io import StringIO

import pytest
from rich.console import Console

from ponder.training.evaluation import Sample, evaluate, sample_seed, summarise
from ponder.training.report import as_json, print_report
from ponder.training.responders import Reply, ResponderError
from ponder.training.tasks.base import Problem, held_out
from ponder.training.tasks.tiny import TINY_TASKS

PROBLEMS = held_out(TINY_TASKS, 35, "test", seed=0)


class Oracle:
    """Right when it may think; thinks ten tokens per difficulty."""

    def __init__(self) -> None:
        self.known = {p.question: p for p in PROBLEMS}
        self.asked: list[tuple[str, int, int]] = []

    async def answer(self, question: str, budget: int, seed: int) -> Reply:
        self.asked.append((question, budget, seed))
        problem = self.known[question]
        if budget == 0:
            return Reply("The answer is -1.", 0, "disabled")
        return Reply(f"The answer is {problem.answer}.", 10 * problem.difficulty, "natural")

    async def close(self) -> None:
        return


class Broken(Oracle):
    async def answer(self, question: str, budget: int, seed: int) -> Reply:
        raise ResponderError("the server is gone")


def measured(oracle: Oracle, samples: int = 2) -> list[Sample]:
    return asyncio.run(
        evaluate(
            oracle,
            TINY_TASKS,
            PROBLEMS,
            budgets=[0, -1],
            samples=samples,
            seed=4,
            advance=lambda: None,
        )
    )


def test_every_problem_is_asked_under_every_budget_with_the_same_seeds() -> None:
    oracle = Oracle()
    assert len(measured(oracle)) == 35 * 2 * 2
    seeds = {b: {(q, s) for q, budget, s in oracle.asked if budget == b} for b in (0, -1)}
    assert seeds[0] == seeds[-1]
    assert len(seeds[0]) == 70


def test_seeds_fit_every_engine_and_differ() -> None:
    seeds = [sample_seed(0, problem, n) for problem in PROBLEMS for n in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_cells_per_budget_and_difficulty() -> None:
    samples = measured(Oracle())
    cells = summarise(samples, lambda s: s.budget)
    assert (cells[0].accuracy.mean, cells[-1].accuracy.mean) == (0.0, 1.0)
    assert (cells[0].natural, cells[-1].natural) == (0.0, 1.0)
    assert (cells[0].problems, cells[0].samples) == (35, 70)
    by_level = summarise(samples, lambda s: (s.budget, s.problem.difficulty))
    assert by_level[-1, 3].tokens.mean == 30.0


def test_an_error_ends_the_evaluation_as_itself() -> None:
    with pytest.raises(ResponderError, match="gone"):
        measured(Broken())


def test_the_report_shows_budgets_difficulties_and_families() -> None:
    console = Console(file=StringIO(), width=120)
    print_report(measured(Oracle()), console)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert "free" in text
    assert "100.0%" in text
    assert all(task.name in text for task in TINY_TASKS)


def test_the_json_says_what_and_where() -> None:
    problem = Problem("sum:1+1", "sum", 1, "?", "2")
    samples = [Sample(problem, 16, True, 9, "natural")]
    written = json.loads(json.dumps(as_json(samples, {"seed": 0})))
    assert written["settings"] == {"seed": 0}
    assert written["machine"]["versions"]["torch"]
    (cell,) = written["budgets"]
    assert (cell["budget"], cell["accuracy"]["mean"], cell["tokens"]["mean"]) == (16, 1.0, 9.0)
    assert written["difficulties"][0]["difficulty"] == 1
    assert written["tasks"][0]["task"] == "sum"
