"""How long the arms take beside each other: rounds in which each answers the same problems."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ponder.tasks.problems import Problem

from .arms import Arm
from .measure import Asking, wall_seconds

PROBLEMS = {1: 10, 16: 48}
"""How many are answered, by how many are asked at once."""
Round = dict[str, dict[str, float]]
"""Arm → at once → seconds."""


def measure(
    asking: Asking, arms: Sequence[Arm], url: Callable[[], str], file: Path, number: int
) -> Iterator[list[Round]]:
    """The rounds so far, after each, to a `number` of them.

    `file` keeps those of an interrupted run of the same arms.
    """
    rounds: list[Round] = json.loads(file.read_text()) if file.exists() else []
    if any(one.keys() != {arm.name for arm in arms} for one in rounds):
        rounds = []
    yield rounds
    while len(rounds) < number:
        one: Round = {}
        # Which is first changes, so that nobody always comes after the same one.
        for arm in arms if len(rounds) % 2 == 0 else arms[::-1]:
            one[arm.name] = {}
            for at_once, count in PROBLEMS.items():
                mine: list[Problem] = asking.problems["reporting"][:count]
                seconds = asyncio.run(wall_seconds(asking, arm, url(), mine, at_once))
                one[arm.name][str(at_once)] = seconds
        rounds.append(one)
        file.write_text(json.dumps(rounds))
        yield rounds


def ratios(rounds: Sequence[Round], best: Arm) -> dict[str, dict[str, dict[str, float]]]:
    """Arm → at once → its time over the best cap's in the same round: median and range."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for arm in rounds[0] if rounds else ():
        found[arm] = {}
        for at_once in map(str, PROBLEMS):
            each = [one[arm][at_once] / one[best.name][at_once] for one in rounds]
            found[arm][at_once] = {"median": median(each), "low": min(each), "high": max(each)}
    return found


def as_json(rounds: Sequence[Round], best: Arm) -> dict[str, Any]:
    return {"rounds": len(rounds), "ratios": ratios(rounds, best)}
