"""Short derivations for some reasoning-gym data sets, which teach a small model to solve them.

Each data set has a row: it restates the problem and derives the answer in steps. The levels are
limited to those at which a derivation's numbers stay small.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from .gym import PREFIX, GymTask
from .problems import Problem
from .worked import Step, TaughtTask, Worked

Metadata = Mapping[str, Any]
Derivation = Callable[[Metadata], tuple[str, list[str]]]
"""Turns reasoning-gym's metadata of a problem into its restatement and its steps."""

_NUMBER_OR_SIGN = re.compile(r"\d+|[-+*]")


def _chain_sum(told: Metadata) -> tuple[str, list[str]]:
    expression = str(told["expression"])
    first, *rest = _NUMBER_OR_SIGN.findall(expression)
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(term) * (-1 if sign == "-" else 1)
        lines.append(f"{total} {sign} {term} = {after}")
        total = after
    return expression, lines


def multiplied(a: int, b: int) -> list[str]:
    """`a * b` place by place of `b`, then added up."""
    places = [int(digit) * 10**i for i, digit in enumerate(reversed(str(b))) if digit != "0"]
    lines = [f"{a} * {place} = {a * place}" for place in reversed(places or [0])]
    total = a * places[-1] if places else 0
    for place in reversed(places[:-1]):
        lines.append(f"{total} + {a * place} = {total + a * place}")
        total += a * place
    return lines


def _products(told: Metadata) -> tuple[str, list[str]]:
    factors = [int(n) for n in re.findall(r"\d+", told["expression"])]
    product, lines = factors[0], []
    for factor in factors[1:]:
        lines += multiplied(product, factor)
        product *= factor
    return str(told["expression"]), lines


def _euclid(a: int, b: int) -> Iterator[str]:
    a, b = max(a, b), min(a, b)
    while b:
        yield f"{a} - {a // b} * {b} = {a % b}"
        a, b = b, a % b
    yield f"the divisor is {a}"


def _gcd(told: Metadata) -> tuple[str, list[str]]:
    from math import gcd

    first, *rest = told["numbers"]
    lines: list[str] = []
    for number in rest:
        lines += _euclid(first, number)
        first = gcd(first, number)
    return f"the divisor of {' and '.join(map(str, told['numbers']))}", lines


def _count_bits(told: Metadata) -> tuple[str, list[str]]:
    number, ones, lines = told["number"], 0, []
    while number:
        ones += number % 2
        kind = "odd" if number % 2 else "even"
        lines.append(f"{number} is {kind}, half {number // 2}, ones {ones}")
        number //= 2
    return f"ones of {told['number']}", lines


def _prime_factorization(told: Metadata) -> tuple[str, list[str]]:
    number, prime, lines = told["number"], 2, []
    while prime * prime <= number:
        if number % prime == 0:
            lines.append(f"{number} / {prime} = {number // prime}")
            number //= prime
        else:
            lines.append(f"{number} / {prime} no")
            prime += 1 if prime == 2 else 2
    lines.append(f"{number} is prime, {' × '.join(map(str, told['factors']))}")
    return f"the factors of {told['number']}", lines


@cache
def _legs() -> Mapping[str, int]:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    return dict(ANIMALS)


def _leg_counting(told: Metadata) -> tuple[str, list[str]]:
    total, lines = 0, []
    for animal, count in told["animals"].items():
        legs = count * _legs()[animal]
        lines.append(f"{count} {animal}: {count} * {_legs()[animal]} = {legs}")
        if total:
            lines.append(f"{total} + {legs} = {total + legs}")
        total += legs
    return f"the legs of {', '.join(f'{n} {a}' for a, n in told['animals'].items())}", lines


def _fraction_simplification(told: Metadata) -> tuple[str, list[str]]:
    from math import gcd

    a, b = told["numerator"], told["denominator"]
    divisor = gcd(a, b)
    divided = [f"{n} / {divisor} = {n // divisor}" for n in (a, b)]
    return f"{a} over {b}", [*_euclid(a, b), *divided, f"so {a // divisor} over {b // divisor}"]


DERIVATIONS: Mapping[str, tuple[str, Derivation]] = {
    "chain_sum": ("0-4", _chain_sum),
    "products": ("0-2", _products),
    "gcd": ("0", _gcd),
    "count_bits": ("0", _count_bits),
    "prime_factorization": ("0-1", _prime_factorization),
    "leg_counting": ("0-4", _leg_counting),
    "fraction_simplification": ("0", _fraction_simplification),
}
"""By data set that can be taught: its levels and its derivation."""

TAUGHT_GYM = tuple(f"{PREFIX}{name}?levels={levels}" for name, (levels, _) in DERIVATIONS.items())
"""The data sets that can be taught, as recipes name them."""


@dataclass(frozen=True, slots=True)
class _Derived:
    """A data set with its derivations."""

    task: GymTask
    derive: Derivation

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def difficulties(self) -> tuple[int, ...]:
        return self.task.difficulties

    def work(self, rng: Random, difficulty: int) -> Worked:
        problem = self.sample(rng, difficulty)
        restated, lines = self.derive(problem.evidence["metadata"])
        steps = (*map(Step, lines[:-1]), Step(lines[-1], problem.answer))
        return Worked(problem, restated, steps, tuple(lines))

    def sample(self, rng: Random, difficulty: int) -> Problem:
        return self.task.sample(rng, difficulty)

    def verify(self, problem: Problem, text: str) -> bool:
        return self.task.verify(problem, text)


def taught(tasks: Sequence[Any]) -> tuple[TaughtTask, ...]:
    """The tasks with their solutions; `ValueError` names a task without written solutions."""
    return tuple(map(_taught, tasks))


def _taught(task: Any) -> TaughtTask:
    if hasattr(task, "work"):
        found: TaughtTask = task
        return found
    name = task.name.removeprefix(PREFIX)
    if isinstance(task, GymTask) and name in DERIVATIONS:
        return _Derived(task, DERIVATIONS[name][1])
    raise ValueError(
        f"{task.name} has no written solutions to learn from: name tiny, search, or reasoning-gym: "
        f"with one of {', '.join(DERIVATIONS)}"
    )
