"""Measuring a reasoner: accuracy and thinking tokens per budget, on held-out problems.

Every problem is asked under every budget with the same seeds, so a small budget sees the beginning
of the thought that a larger one sees whole: budgets are compared on the same thoughts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .responders import Responder
from .statistics import Estimate, accuracy, mean
from .tasks.base import Problem, Task

Key = TypeVar("Key", bound=Hashable)

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one problem under one budget."""

    problem: Problem
    budget: int
    correct: bool
    thinking_tokens: int
    end_cause: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What a group of samples says: accuracy (0 to 1) and thinking tokens with their intervals."""

    problems: int
    samples: int
    accuracy: Estimate
    tokens: Estimate
    natural: float  # share of thoughts that ended by themselves


async def evaluate(
    responder: Responder,
    tasks: Sequence[Task],
    problems: Sequence[Problem],
    *,
    budgets: Sequence[int],
    samples: int,
    seed: int,
    advance: Callable[[], object],
) -> list[Sample]:
    """Ask every problem `samples` times under every budget; `advance` is called per answer.

    The first error of an answer ends the evaluation, as itself and not as a group.
    """
    judges = {task.name: task for task in tasks}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(problem: Problem, budget: int, number: int) -> Sample:
        async with gate:
            reply = await responder.answer(
                problem.question, budget, sample_seed(seed, problem, number)
            )
        advance()
        return Sample(
            problem,
            budget,
            judges[problem.family].verify(problem, reply.text),
            reply.thinking_tokens,
            reply.end_cause,
        )

    try:
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(ask(problem, budget, number))
                for budget in budgets
                for problem in problems
                for number in range(samples)
            ]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in asked]


def sample_seed(seed: int, problem: Problem, number: int) -> int:
    """A seed of 31 bits for one sample of one problem, the same under every budget."""
    digest = hashlib.sha256(f"{seed}/{problem.id}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def summarise(samples: Iterable[Sample], key: Callable[[Sample], Key]) -> dict[Key, Cell]:
    """A cell per value of `key`, in order of first appearance."""
    groups: dict[Key, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[key(sample)].append(sample)
    return {value: _cell(group) for value, group in groups.items()}


def _cell(samples: Sequence[Sample]) -> Cell:
    by_problem: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_problem[sample.problem.id].append(sample)
    groups = list(by_problem.values())
    return Cell(
        problems=len(groups),
        samples=len(samples),
        accuracy=accuracy([[s.correct for s in group] for group in groups]),
        tokens=mean([[float(s.thinking_tokens) for s in group] for group in groups]),
        natural=sum(s.end_cause == "natural" for s in samples) / len(samples),
    )
