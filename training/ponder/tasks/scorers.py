"""Our own scorers for the reasoning-gym data sets whose scorers run an answer as code.

They accept the same answers, with two exceptions: countdown and puzzle24 are exact (reasoning-gym
rounds), and puzzle24 wants the numbers of the question (reasoning-gym accepts any four).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from typing import Any

from .arithmetic import calculate, symbolic

Entry = Mapping[str, Any]


def load(dataset: str) -> None:
    """Load the modules that a data set's scorer loads at its first use."""
    if OWN[dataset] is _integral:
        _integral("x**2/2 + sin(x) + C", {"metadata": {"variable": "x", "integrand": "x + cos(x)"}})


def _same(answer: str, entry: Entry) -> bool:
    return bool(answer == entry["answer"])


def _same_stripped(answer: str, entry: Entry) -> bool:
    return bool(answer.strip() == entry["answer"].strip())


def _board(answer: str, entry: Entry) -> bool:
    return answer in entry["metadata"]["valid_answers"]


def _bits(answer: str, entry: Entry) -> bool:
    return int(answer, 0) == int(entry["answer"], 0)


def target(answer: str, entry: Entry) -> bool:
    value, numbers = calculate(answer)
    wanted = entry["metadata"]
    return value == wanted.get("target", 24) and sorted(numbers) == sorted(wanted["numbers"])


def _integral(answer: str, entry: Entry) -> bool:
    import sympy

    name = entry["metadata"]["variable"]
    slope = sympy.diff(symbolic(answer, name), sympy.Symbol(name))
    return bool(sympy.simplify(slope - symbolic(entry["metadata"]["integrand"], name)) == 0)


def _sorted(answer: str, entry: Entry) -> bool:
    """As in reasoning-gym: sorted, and every number within 1 of the reference at its place."""
    given = [float(number) for number in json.loads(answer.replace("'", '"'))]
    wanted = [float(number) for number in ast.literal_eval(entry["answer"])]
    descending = entry["metadata"]["direction"] != "ascending"
    return given == sorted(given, reverse=descending) and all(
        abs(a - b) <= 1 for a, b in zip(given, wanted, strict=True)
    )


OWN: Mapping[str, Callable[[str, Entry], bool]] = {
    "binary_matrix": _same,
    "bitwise_arithmetic": _bits,
    "countdown": target,
    "n_queens": _board,
    "number_sorting": _sorted,
    "puzzle24": target,
    "simple_integration": _integral,
    "spiral_matrix": _same_stripped,
    "string_insertion": _same,
}
