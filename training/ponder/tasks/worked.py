"""Problems that come with their solution: the raw material of written thoughts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from .problems import Problem, Task
from .verifiers import verify


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a solution and the best answer known after it (None: still only a guess).

    A dead end is a step that a luckier search would not take.
    """

    text: str
    best: str | None = None
    dead_end: bool = False


@dataclass(frozen=True, slots=True)
class Worked:
    """A problem with its solution.

    `restated` is the problem in the words of its steps. `checks` are true statements that prove the
    answer. A `search` may go astray before it succeeds, so that repeating it would prove nothing.
    """

    problem: Problem
    restated: str
    steps: tuple[Step, ...]
    checks: tuple[str, ...]
    search: bool = False

    def with_fewer_dead_ends(self) -> Worked:
        """The same problem, without the first half of its dead ends."""
        dead = [step for step in self.steps if step.dead_end]
        dropped = dead[: (len(dead) + 1) // 2]
        return replace(self, steps=tuple(step for step in self.steps if step not in dropped))

    def shortest(self) -> str:
        """The solution alone, without dead ends: the limit of savings."""
        return ". ".join(step.text for step in self.steps if not step.dead_end) + "."


class TaughtTask(Task, Protocol):
    """A task that can be taught: `work` gives the same problem as `sample`, with its solution."""

    def work(self, rng: Random, difficulty: int) -> Worked: ...


@dataclass(frozen=True, slots=True)
class WorkedTask:
    """A family whose problems `solve` draws and solves, as a function of its `rng` alone."""

    name: str
    solve: Callable[[Random, int], Worked]
    difficulties: tuple[int, ...]

    def work(self, rng: Random, difficulty: int) -> Worked:
        if difficulty not in self.difficulties:
            raise ValueError(f"{self.name} has difficulties {self.difficulties}, not {difficulty}")
        return self.solve(rng, difficulty)

    def sample(self, rng: Random, difficulty: int) -> Problem:
        return self.work(rng, difficulty).problem

    def verify(self, problem: Problem, text: str) -> bool:
        return verify(problem, text)
