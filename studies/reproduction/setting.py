"""Protocol 4's setting: its families, lengths, budgets and problems.

docs/protocol.md says why; a change here is a new version of the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ponder.tasks.derivations import TAUGHT_GYM, taught
from ponder.tasks.problems import Split, split_of
from ponder.tasks.sources import find_tasks
from ponder.tasks.worked import Worked

TASKS = ("tiny", "search", *TAUGHT_GYM)
HELD_OUT = ("reasoning-gym:basic_arithmetic?levels=0-1",)
"""No training sees it."""
TOOLS = ("calculator",)

LONGEST = 1536
"""Longest evaluated response, in tokens: room for every response that ends by itself."""
BUDGETS = (24, 48, 96, 120)
ANSWER = 48
"""Tokens of an answer to a closed thought: enough for a sudoku."""
_SEED = 3


def problems(each: int, names: Sequence[str] = TASKS, split: Split = "validation") -> list[Worked]:
    """`each` different problems of every family and difficulty, or as many as found."""
    rng = Random(_SEED)
    found: list[Worked] = []
    for task in taught(find_tasks(names)):
        for difficulty in task.difficulties:
            fresh: dict[str, Worked] = {}
            for _ in range(200 * each):
                worked = task.work(rng, difficulty)
                if split_of(worked.problem) == split:
                    fresh.setdefault(worked.problem.id, worked)
                if len(fresh) == each:
                    break
            found += fresh.values()
    return found
