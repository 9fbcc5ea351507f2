"""Shortest ways through small mazes: a flood from the start, a ring of fields at a time.

Before the flood reaches the goal, its distance has a lower bound: the rows and columns between, and
more than the number of full rings. That bound is the best candidate of a truncated thought. At
difficulty d the way has 2d or 2d + 1 steps.
"""

from __future__ import annotations

from random import Random

from .problems import Problem, content_digest
from .worked import Step, Worked, WorkedTask

DIFFICULTIES = (1, 2, 3, 4, 5, 6)
_SIZES = (3, 3, 4, 4, 5, 5)
_WALLS = 0.35
_ASKED = (
    "A {size} x {size} grid has the fields a1 to {last}. Walls are on {walls}. "
    "How many steps is the shortest way from {start} to {goal}?",
    "In a maze of {size} x {size} fields there are walls on {walls}. "
    "In how many steps do you get from {start} to {goal}?",
)

Field = tuple[int, int]


def name(field: Field) -> str:
    """`(0, 2)` is a3, as in chess."""
    return f"{'abcdefgh'[field[0]]}{field[1] + 1}"


def rings(size: int, walls: frozenset[Field], start: Field) -> list[list[Field]]:
    """The fields at each distance from `start`, as a flood reaches them."""
    seen, found = {start}, [[start]]
    while found[-1]:
        ring = []
        for column, row in found[-1]:
            for field in (
                (column, row + 1),
                (column + 1, row),
                (column, row - 1),
                (column - 1, row),
            ):
                if min(field) >= 0 and max(field) < size and field not in walls | seen:
                    seen.add(field)
                    ring.append(field)
        found.append(ring)
    return found[:-1]


def _maze(rng: Random, difficulty: int) -> Worked:
    size = _SIZES[difficulty - 1]
    fields = [(column, row) for column in range(size) for row in range(size)]
    while True:
        walls = frozenset(field for field in fields if rng.random() < _WALLS)
        free = [field for field in fields if field not in walls]
        if not (walls and free):
            continue
        start = rng.choice(free)
        ways = rings(size, walls, start)
        goals = [f for d in (2 * difficulty, 2 * difficulty + 1) for f in ways[d : d + 1]]
        if goals:
            goal = rng.choice([field for ring in goals for field in ring])
            break
    listed = [name(field) for field in sorted(walls)]
    asked = f"{name(start)} to {name(goal)}"
    question = rng.choice(_ASKED).format(
        size=size, last=name((size - 1, size - 1)), walls=", ".join(listed),
        start=name(start), goal=name(goal),
    )  # fmt: skip
    steps = _flooded(ways, goal)
    content = content_digest(f"{size} {listed} {asked}")
    answer = steps[-1].best
    assert answer is not None
    problem = Problem(f"maze:{content}", "maze", difficulty, question, answer)
    lines = tuple(step.text for step in steps)
    return Worked(problem, f"{asked}, walls {' '.join(listed)}", steps, lines, search=True)


def _flooded(ways: list[list[Field]], goal: Field) -> tuple[Step, ...]:
    """A step for each ring until the goal is reached, with the lower bound of its distance."""
    (start,) = ways[0]
    between = abs(goal[0] - start[0]) + abs(goal[1] - start[1])
    distance = next(d for d, ring in enumerate(ways) if goal in ring)
    steps = []
    for d in range(distance):
        least = d + 2 - (d + between) % 2  # every way's length has the parity of the direct one's
        steps.append(Step(f"{d}: {' '.join(map(name, ways[d]))}", str(max(between, least))))
    return (*steps, Step(f"{distance}: {name(goal)}, there", str(distance)))


MAZE = WorkedTask("maze", _maze, DIFFICULTIES)
