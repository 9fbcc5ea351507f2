"""Sudoku of four by four: a thought visits empty fields, and fills a field with one candidate.

A visit that leaves several candidates is a dead end, and the field has to be visited again. Every
puzzle can be filled without a guess. At difficulty d, 2d fields are empty.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations
from random import Random

from .problems import Problem, content_digest
from .worked import Step, Worked, WorkedTask

DIFFICULTIES = (1, 2, 3, 4, 5)
_NUMBERS = (1, 2, 3, 4)
_FIELDS = tuple((row, column) for row in range(4) for column in range(4))
_ASKED = (
    "Fill this sudoku of 4 x 4: {rows}.",
    "Solve the 4 x 4 sudoku with the rows {rows}.",
)

Field = tuple[int, int]
Grid = dict[Field, int]  # the filled fields


@cache
def solutions() -> tuple[tuple[int, ...], ...]:
    """All 288 filled grids, row by row."""
    rows = list(permutations(_NUMBERS))
    found = []
    for a in rows:
        for b in (b for b in rows if not {*a[:2]} & {*b[:2]} and not {*a[2:]} & {*b[2:]}):
            for c in (c for c in rows if all(len({*z}) == 3 for z in zip(a, b, c, strict=True))):
                d = tuple(10 - sum(z) for z in zip(a, b, c, strict=True))
                if not {*c[:2]} & {*d[:2]} and not {*c[2:]} & {*d[2:]}:
                    found.append((*a, *b, *c, *d))
    return tuple(found)


def _named(field: Field) -> str:
    return f"{'abcd'[field[0]]}{field[1] + 1}"


def _taken(grid: Grid, field: Field) -> tuple[list[int], list[int], list[int]]:
    """The numbers in a field's row, in its column and in its box."""
    row, column = field
    return (
        [n for (r, _), n in grid.items() if r == row],
        [n for (_, c), n in grid.items() if c == column],
        [n for (r, c), n in grid.items() if (r // 2, c // 2) == (row // 2, column // 2)],
    )


def left(grid: Grid, field: Field) -> list[int]:
    """The numbers that may stand on an empty field."""
    taken = {n for part in _taken(grid, field) for n in part}
    return [n for n in _NUMBERS if n not in taken]


def _visited(grid: Grid, field: Field) -> str:
    parts = zip(("row", "column", "box"), _taken(grid, field), strict=True)
    told = [f"{part} {' '.join(map(str, sorted(numbers)))}" for part, numbers in parts if numbers]
    rest = left(grid, field)
    ending = f"so {rest[0]}" if len(rest) == 1 else f"{' or '.join(map(str, rest))}, later"
    return f"{_named(field)}: {', '.join((*told, ending))}"


def _filled(grid: Grid) -> list[str] | None:
    """The visits that fill a grid, which is changed; None where a guess is needed."""
    visits: list[str] = []
    while empty := [field for field in _FIELDS if field not in grid]:
        before = len(grid)
        for field in empty:
            visits.append(_visited(grid, field))
            rest = left(grid, field)
            if len(rest) == 1:
                grid[field] = rest[0]
        if len(grid) == before:
            return None
    return visits


def _written(grid: Grid) -> str:
    """`1 _ 3 4 / …`: rows from a to d."""
    cells = [str(grid.get(field, "_")) for field in _FIELDS]
    return " / ".join(" ".join(cells[i : i + 4]) for i in range(0, 16, 4))


def _sudoku(rng: Random, difficulty: int) -> Worked:
    while True:
        solution = dict(zip(_FIELDS, rng.choice(solutions()), strict=True))
        given = dict(sorted(rng.sample(sorted(solution.items()), 16 - 2 * difficulty)))
        visits = _filled(dict(given))
        if visits is not None:
            break
    rows, answer = _written(given), _written(solution)
    question = rng.choice(_ASKED).format(rows=rows)
    problem = Problem(
        f"sudoku:{content_digest(rows)}", "sudoku", difficulty, question, answer, "exact"
    )
    steps = [Step(visit, dead_end=visit.endswith(", later")) for visit in visits]
    steps.append(Step(f"full: {answer}", answer))
    known = " ".join(f"{_named(field)} {number}" for field, number in given.items())
    return Worked(problem, known, tuple(steps), (f"rows {answer}",), search=True)


SUDOKU = WorkedTask("sudoku", _sudoku, DIFFICULTIES)
