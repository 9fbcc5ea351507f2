"""Draws a run's training problems: a function of the seed and the place in the run alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

from .problems import FiniteTask, Problem, Task, draw

_REDRAWS = 1000


class Source:
    """Training problems of `tasks` that `fits` accepts.

    Endless families are drawn from at random. Listed problems are visited in a shuffled order, each
    once before any comes again, and reshuffled for each pass. Dynamic sampling's further batches
    (at most `retries` a step) have an order of their own, so that the main order is the same
    wherever a run is resumed. When endless and listed tasks are mixed, all take turns equally, and
    listed problems are drawn at random, too. Raises `ValueError` for a task without any problem
    that fits.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        seed: int,
        prompts: int,
        retries: int,
        fits: Callable[[Problem], bool],
    ) -> None:
        self._tasks = tasks
        self._seed = seed
        self._prompts = prompts
        self._retries = retries
        self._fits = fits
        self._lists = {
            task.name: [
                problem
                for difficulty in task.difficulties
                for problem in task.problems(difficulty, "train")
                if fits(problem)
            ]
            for task in tasks
            if isinstance(task, FiniteTask)
        }
        for name, problems in self._lists.items():
            if not problems:
                raise ValueError(
                    f"tasks: {name} has no training problem that fits: add problems (a fifth of "
                    "them is kept for validation and tests), or raise rollouts.longest_prompt"
                )
        for task in tasks:
            if task.name not in self._lists:
                self._draw(Random(seed), task)
        endless = len(self._lists) < len(tasks)
        self._listed = [] if endless else [p for of in self._lists.values() for p in of]
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def problem(self, step: int, attempt: int, number: int, key: str) -> Problem:
        """Problem `number` of a step's batch `attempt`; `key` seeds draws from endless families."""
        if self._listed:
            return self._visit(step, attempt, number)
        rng = Random(hashlib.sha256(key.encode()).digest())
        task = rng.choice(self._tasks)
        if listed := self._lists.get(task.name):
            return rng.choice(listed)
        return self._draw(rng, task)

    def _draw(self, rng: Random, task: Task) -> Problem:
        for _ in range(_REDRAWS):
            problem = draw(task, rng, rng.choice(task.difficulties), "train")
            if self._fits(problem):
                return problem
        raise ValueError(
            f"tasks: {task.name} has no problem with a short enough prompt: raise "
            "rollouts.longest_prompt"
        )

    def _visit(self, step: int, attempt: int, number: int) -> Problem:
        batch = step if attempt == 0 else step * self._retries + attempt - 1
        epoch, place = divmod(batch * self._prompts + number, len(self._listed))
        return self._listed[self._order(attempt > 0, epoch)[place]]

    def _shuffled(self, retry: bool, epoch: int) -> list[int]:
        key = f"{self._seed}/{'retry' if retry else 'order'}/{epoch}"
        rng = Random(hashlib.sha256(key.encode()).digest())
        return rng.sample(range(len(self._listed)), len(self._listed))
