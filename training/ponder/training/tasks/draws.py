"""Which problem a run trains on when: a function of the seed and the place in the run alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

from .base import FiniteTask, Problem, Task, draw

_REDRAWS = 1000


class Source:
    """Training problems of `tasks` that `fits` accepts.

    Endless families are drawn from at random. Listed problems are visited in a shuffled order,
    each once before any comes again, and shuffled anew; those that dynamic sampling asks for
    beyond a step's first batch (`retries` batches at most) have an order of their own, so that the
    main order holds wherever a run is resumed. Beside an endless family, listed problems are drawn
    at random, too.
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
        self._listed: list[Problem] = []
        finite = [task for task in tasks if isinstance(task, FiniteTask)]
        if len(finite) == len(tasks):
            self._listed = [
                problem
                for task in finite
                for difficulty in task.difficulties
                for problem in task.problems(difficulty, "train")
                if fits(problem)
            ]
            if not self._listed:
                raise ValueError("no training problem fits: raise rollouts.longest_prompt")
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def problem(self, step: int, attempt: int, number: int, key: str) -> Problem:
        """Problem `number` of a step's batch `attempt`; `key` seeds draws from endless families."""
        if self._listed:
            return self._visit(step, attempt, number)
        rng = Random(hashlib.sha256(key.encode()).digest())
        for _ in range(_REDRAWS):
            task = rng.choice(self._tasks)
            problem = draw(task, rng, rng.choice(task.difficulties), "train")
            if self._fits(problem):
                return problem
        raise ValueError("no problem with a short enough prompt: raise rollouts.longest_prompt")

    def _visit(self, step: int, attempt: int, number: int) -> Problem:
        batch = step if attempt == 0 else step * self._retries + attempt - 1
        epoch, place = divmod(batch * self._prompts + number, len(self._listed))
        return self._listed[self._order(attempt > 0, epoch)[place]]

    def _shuffled(self, retry: bool, epoch: int) -> list[int]:
        key = f"{self._seed}/{'retry' if retry else 'order'}/{epoch}"
        rng = Random(hashlib.sha256(key.encode()).digest())
        return rng.sample(range(len(self._listed)), len(self._listed))
