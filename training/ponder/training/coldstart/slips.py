"""Slips: a wrong result in a worked solution, and steps that follow correctly from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

_EQUALITY = re.compile(r"(.*?)(-?\d+) ([-+*/]) (\d+) = (-?\d+)")
_CANDIDATE = re.compile(r"(.* = )(\d+), best \d+")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a solution in three parts: before a wrong number, that number, after it."""

    text: str
    wrong: str = ""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Slipped:
    """A solution with one wrong number, and the answer it leads to."""

    lines: tuple[Line, ...]
    answer: str


def mistaken(rng: Random, number: int) -> int:
    """A different number that is near `number` or looks alike; ≥ 0 if `number` is."""
    while True:
        off = rng.choice((1, 1, 2, 3, 5, 10, 10, 20)) * rng.choice((-1, 1))
        if number < 0 or number + off >= 0:
            return number + off


def slipped(lines: Sequence[str], answer: str, rng: Random) -> Slipped | None:
    """`lines` with a slip that changes the answer; None where no single number can do so.

    The lines after the slip compute correctly from its wrong number: `85 - 15 = 60. 60 + 7 = 67`.
    """
    if all(_CANDIDATE.fullmatch(line) for line in lines):
        return _overrated(lines, rng)
    if not lines or not _is_result(lines[-1], answer):
        return None
    chained = len(lines) - 1
    while chained and _follows(lines[chained - 1], lines[chained]):
        chained -= 1
    at = rng.randint(chained, len(lines) - 1)
    return _carried(lines, at, rng) or _carried(lines, len(lines) - 1, rng)


def _parts(line: str) -> tuple[str, int, str, int, int] | None:
    found = _EQUALITY.fullmatch(line)
    if found is None:
        return None
    before, left, sign, right, result = found.groups()
    if _value(int(left), sign, int(right)) != int(result):
        return None
    return before, int(left), sign, int(right), int(result)


def _value(left: int, sign: str, right: int) -> int | None:
    if sign == "/":
        return left // right if right and left % right == 0 else None
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


def _is_result(line: str, answer: str) -> bool:
    parts = _parts(line)
    return parts is not None and str(parts[-1]) == answer


def _follows(line: str, after: str) -> bool:
    one, two = _parts(line), _parts(after)
    return one is not None and two is not None and one[-1] == two[1]


def _carried(lines: Sequence[str], at: int, rng: Random) -> Slipped | None:
    parts = _parts(lines[at])
    assert parts is not None
    before, left, sign, right, result = parts
    carried = mistaken(rng, result)
    made = [*map(Line, lines[:at]), Line(f"{before}{left} {sign} {right} =", f" {carried}")]
    for line in lines[at + 1 :]:
        parts = _parts(line)
        assert parts is not None
        before, _, sign, right, _ = parts
        value = _value(carried, sign, right)
        if value is None or (value < 0 <= parts[-1]):
            return None
        made.append(Line(f"{before}{carried} {sign} {right} = {value}"))
        carried = value
    return Slipped(tuple(made), str(carried))


def _overrated(lines: Sequence[str], rng: Random) -> Slipped:
    """A slip in a value of a list, which may also change the best value so far."""
    at, best, made = rng.randrange(len(lines)), 0, []
    for i, line in enumerate(lines):
        found = _CANDIDATE.fullmatch(line)
        assert found is not None
        value = int(found[2])
        if i == at:
            value = mistaken(rng, value)
        best = max(best, value)
        text = found[1].removesuffix(" ")
        rest = f", best {best}"
        made.append(Line(text, f" {value}", rest) if i == at else Line(f"{text} {value}{rest}"))
    return Slipped(tuple(made), str(best))
