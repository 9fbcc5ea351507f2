"""A problem, where it comes from, and on which side of the split it lies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

Split = Literal["train", "validation", "test"]

VALIDATION_PERCENT = 10
TEST_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with a checkable answer.

    `id` is `family:content`. The content is what the problem *is* (its numbers and operators),
    not how it is phrased: two phrasings of one problem share it.
    """

    id: str
    family: str
    difficulty: int
    question: str
    answer: str


class Task(Protocol):
    """A family of problems with a difficulty knob, and the judge of their answers.

    `sample` is deterministic in the state of `rng`. `difficulty` is one of `difficulties`; another
    value is a `ValueError`. `verify` gets the text *after* the thought and never raises: text that
    cannot be read is a wrong answer.
    """

    @property
    def name(self) -> str: ...

    @property
    def difficulties(self) -> tuple[int, ...]: ...

    def sample(self, rng: Random, difficulty: int) -> Problem: ...

    def verify(self, problem: Problem, text: str) -> bool: ...


def split_of(problem: Problem) -> Split:
    """The split a problem belongs to: a stable hash of its content, 80/10/10.

    The family is left out of the hash on purpose: a word problem that boils down to `37+48-15` lies
    on the same side as the bare sum, so a held-out problem is held out in every dress.
    """
    content = problem.id.split(":", 1)[-1]
    digest = hashlib.sha256(content.encode()).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    if percent < TEST_PERCENT:
        return "test"
    if percent < TEST_PERCENT + VALIDATION_PERCENT:
        return "validation"
    return "train"


def draw(task: Task, rng: Random, difficulty: int, split: Split) -> Problem:
    """A problem of `task` that lies in `split`, by rejection."""
    while True:
        problem = task.sample(rng, difficulty)
        if split_of(problem) == split:
            return problem


def held_out(tasks: tuple[Task, ...], n: int, split: Split, seed: int) -> list[Problem]:
    """`n` different problems of `split`, spread evenly over the tasks and their difficulties.

    A small family may run out of fresh problems: after 200 repeats in a row its turn passes to the
    next one. Raises `ValueError` where the tasks together hold fewer than `n`.
    """
    rng = Random(seed)
    open_cells = [(task, level) for task in tasks for level in task.difficulties]
    rng.shuffle(open_cells)
    found: dict[str, Problem] = {}
    while len(found) < n:
        if not open_cells:
            raise ValueError(f"only {len(found)} different {split} problems exist; ask for fewer")
        for cell in tuple(open_cells):
            task, level = cell
            fresh = next(
                (p for _ in range(200) if (p := draw(task, rng, level, split)).id not in found),
                None,
            )
            if fresh is None:
                open_cells.remove(cell)
            else:
                found[fresh.id] = fresh
            if len(found) == n:
                break
    return list(found.values())
