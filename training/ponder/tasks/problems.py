"""Problems, their tasks, and the split into training, validation and test problems."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any, Literal, Protocol, get_args, runtime_checkable

Split = Literal["train", "validation", "test"]

VALIDATION_PERCENT = 10
TEST_PERCENT = 10

# A split of 10 % is missed by this many draws of an endless family once in 10^46 times.
_DRAWS = 1000
_REPEATS = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with a checkable answer.

    `id` is `family:content`. The content is what the problem *is* (its numbers and operators), not
    its phrasing: two phrasings of one problem share the content. `verifier` names the judge of its
    answers (`verifiers.VERIFIERS`), which also gets `evidence` beside `answer`. The answer may call
    `tools`, which are in the form that chat templates take.
    """

    id: str
    family: str
    difficulty: int
    question: str
    answer: str
    verifier: str = "number"
    evidence: Any = field(default=None, compare=False, repr=False)
    tools: Sequence[Mapping[str, Any]] = field(default=(), compare=False, repr=False)


class Task(Protocol):
    """A family of problems with a difficulty knob, and the judge of their answers.

    `sample` is deterministic in the state of `rng`. `difficulty` is one of `difficulties`; another
    value is a `ValueError`. `verify` gets the text *after* the thought and never raises: unreadable
    text is a wrong answer.
    """

    @property
    def name(self) -> str: ...

    @property
    def difficulties(self) -> tuple[int, ...]: ...

    def sample(self, rng: Random, difficulty: int) -> Problem: ...

    def verify(self, problem: Problem, text: str) -> bool: ...


@runtime_checkable
class FiniteTask(Task, Protocol):
    """A task that lists its problems, so that they are drawn from the list, not by rejection."""

    def problems(self, difficulty: int, split: Split) -> Sequence[Problem]: ...


def content_digest(text: str) -> str:
    """A short name for a text that is a problem's content: 64 bits of its hash, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_of(problem: Problem) -> Split:
    """The split a problem belongs to: a stable hash of its content, 80/10/10.

    The hash leaves the family out on purpose: a word problem that boils down to `37+48-15` lies in
    the same split as the bare sum, so a held-out problem is held out in every wording.
    """
    content = problem.id.removeprefix(f"{problem.family}:")
    digest = hashlib.sha256(content.encode()).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    if percent < TEST_PERCENT:
        return "test"
    if percent < TEST_PERCENT + VALIDATION_PERCENT:
        return "validation"
    return "train"


def draw(task: Task, rng: Random, difficulty: int, split: Split) -> Problem:
    """A problem of an endless `task` that lies in `split`; `ValueError` where there is none."""
    for _ in range(_DRAWS):
        problem = task.sample(rng, difficulty)
        if split_of(problem) == split:
            return problem
    raise ValueError(f"{task.name} has no {split} problem of difficulty {difficulty}: leave it out")


def held_out(tasks: Sequence[Task], n: int, split: Split, seed: int) -> list[Problem]:
    """`n` different problems of `split`, as `at_most` finds them.

    Raises `ValueError` where the tasks together hold fewer than `n`.
    """
    found = at_most(tasks, n, split, seed)
    if len(found) < n:
        raise ValueError(f"only {len(found)} different {split} problems exist; ask for fewer")
    return found


def at_most(tasks: Sequence[Task], n: int, split: Split | None, seed: int) -> list[Problem]:
    """Up to `n` different problems, spread evenly over the tasks and their difficulties.

    Without a split, problems come from the whole of a listed task and from an endless family's test
    split. A small family may run out of fresh problems: a finite one when all are taken, an endless
    one after 200 repeats in a row. Its turn then passes to the next family.
    """
    rng = Random(seed)
    open_cells = [_stream(task, rng, level, split) for task in tasks for level in task.difficulties]
    rng.shuffle(open_cells)
    found: dict[str, Problem] = {}
    while open_cells and len(found) < n:
        for cell in tuple(open_cells):
            fresh = next((p for p in islice(cell, _REPEATS) if p.id not in found), None)
            if fresh is None:
                open_cells.remove(cell)
            else:
                found[fresh.id] = fresh
            if len(found) == n:
                break
    return list(found.values())


def _stream(task: Task, rng: Random, difficulty: int, split: Split | None) -> Iterator[Problem]:
    """Problems in random order: each of a finite task's once, those of an endless one for ever."""
    if isinstance(task, FiniteTask):
        splits = (split,) if split else get_args(Split)
        listed = [problem for each in splits for problem in task.problems(difficulty, each)]
        yield from rng.sample(listed, len(listed))
        return
    while True:
        yield draw(task, rng, difficulty, split or "test")
