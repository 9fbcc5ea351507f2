"""Countdown and the 24 game: reach a number from given ones, each used once, with + - * /.

A thought is a search: attempts in random order, each from the given numbers down to two, whose sum,
difference, product and quotient are compared with the goal. The length of the search depends on the
share of successful attempts, which defines the difficulty: at difficulty d, one attempt in 2^d to
2^(d + 1) succeeds. A model that proposes better attempts needs fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, combinations_with_replacement
from random import Random

from .problems import Problem
from .worked import Step, Worked, WorkedTask

DIFFICULTIES = (1, 2, 3, 4, 5, 6)
_LARGEST = 99  # of the numbers on the way
_FAILURES = 40  # most that are written out
_ASKED = (
    "Reach {goal} from {numbers} with + - * /, each number once.",
    "Make {goal} from the numbers {numbers}. Use each once, with + - * / and brackets.",
    "How can you get {goal} from {numbers}, using every number exactly once?",
)

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """A number on the way, and the expression that makes it."""

    value: int
    text: str


def _combined(a: Term, b: Term) -> Iterator[Term]:
    """The positive whole numbers that two numbers make, the larger operand first."""
    if a.value < b.value:
        a, b = b, a
    for sign, value in (("+", a.value + b.value), ("-", a.value - b.value)):
        if value > 0:
            yield Term(value, f"{a.text} {sign} {b.text}")
    yield Term(a.value * b.value, f"{a.text} * {b.text}")
    if b.value > 1 and a.value % b.value == 0:
        yield Term(a.value // b.value, f"{a.text} / {b.text}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A way from the given numbers down to the `last` two: an equality for each step."""

    lines: tuple[str, ...]
    last: tuple[Term, Term]

    @property
    def made(self) -> tuple[Term, ...]:
        return tuple(_combined(*self.last))

    def failed(self) -> str:
        values = ", ".join(str(term.value) for term in self.made)
        a, b = sorted((term.value for term in self.last), reverse=True)
        return ", ".join((*self.lines, f"{a} and {b} make {values}, no"))

    def found(self, term: Term) -> str:
        a, b = sorted((each.value for each in self.last), reverse=True)
        sign = term.text[len(self.largest.text) + 1]
        return ", ".join((*self.lines, f"{a} {sign} {b} = {term.value}, yes"))

    @property
    def largest(self) -> Term:
        a, b = self.last
        return b if a.value < b.value else a


def _attempts(terms: Sequence[Term], lines: tuple[str, ...] = ()) -> Iterator[Attempt]:
    if len(terms) == 2:
        yield Attempt(lines, (terms[0], terms[1]))
        return
    for i, j in combinations(range(len(terms)), 2):
        rest = [term for k, term in enumerate(terms) if k not in (i, j)]
        for made in _combined(terms[i], terms[j]):
            if made.value <= _LARGEST:
                a, b = sorted((terms[i].value, terms[j].value), reverse=True)
                sign = made.text[len((terms[i] if terms[i].value == a else terms[j]).text) + 1]
                line = f"{a} {sign} {b} = {made.value}"
                yield from _attempts([*rest, Term(made.value, f"({made.text})")], (*lines, line))


@lru_cache(maxsize=4096)
def attempts(numbers: Numbers) -> tuple[Attempt, ...]:
    """Every way down to two numbers, each once."""
    found = {a.lines: a for a in _attempts([Term(n, str(n)) for n in numbers])}
    return tuple(found.values())


def hits(attempt: Attempt, goal: int) -> Term | None:
    """How an attempt makes the goal, if it does."""
    return next((term for term in attempt.made if term.value == goal), None)


@lru_cache(maxsize=4096)
def reachable(numbers: Numbers) -> Counter[int]:
    """How many attempts make each number."""
    made: Counter[int] = Counter()
    for attempt in attempts(numbers):
        made.update({term.value for term in attempt.made})
    return made


def level(numbers: Numbers, goal: int) -> int:
    """The difficulty: d where one in 2^d to 2^(d + 1) attempts succeeds; 0 for none."""
    of = reachable(numbers)[goal]
    return min(max((len(attempts(numbers)) // of).bit_length() - 1, 1), 6) if of else 0


def _worked(family: str, numbers: Numbers, goal: int, rng: Random) -> Worked:
    tried = list(attempts(numbers))
    rng.shuffle(tried)
    steps, written = [], 0
    for attempt in tried:
        term = hits(attempt, goal)
        if term is not None:
            steps.append(Step(attempt.found(term), term.text))
            break
        if written < _FAILURES:
            steps.append(Step(attempt.failed(), dead_end=True))
            written += 1
    listed = list(numbers)
    rng.shuffle(listed)
    question = rng.choice(_ASKED).format(goal=goal, numbers=", ".join(map(str, listed)))
    answer = steps[-1].best
    assert answer is not None
    problem = Problem(
        f"{family}:{','.join(map(str, numbers))}={goal}",
        family,
        level(numbers, goal),
        question,
        answer,
        "expression",
        evidence={"metadata": {"target": goal, "numbers": list(numbers)}},
    )
    restated = f"{goal} from {', '.join(map(str, listed))}"
    last = steps[-1].text.removesuffix(", yes")
    return Worked(problem, restated, tuple(steps), (last, f"{goal} is the goal"), search=True)


def _countdown(rng: Random, difficulty: int) -> Worked:
    """Three numbers, or four for the harder half; the goal is any that is hard enough."""
    count = 3 if difficulty <= 3 else 4
    while True:
        numbers = tuple(sorted(rng.randint(2, 12) for _ in range(count)))
        goals = [
            goal
            for goal in reachable(numbers)
            if 10 <= goal <= _LARGEST and level(numbers, goal) == difficulty
        ]
        if goals:
            return _worked("countdown", numbers, rng.choice(sorted(goals)), rng)


@lru_cache(maxsize=1)
def _of_24() -> dict[int, list[Numbers]]:
    """The hands of one to nine that make 24, by difficulty."""
    hands = [hand for n in (3, 4) for hand in combinations_with_replacement(range(1, 10), n)]
    return {d: [hand for hand in hands if level(hand, 24) == d] for d in DIFFICULTIES}


def _twenty_four(rng: Random, difficulty: int) -> Worked:
    return _worked("24", rng.choice(_of_24()[difficulty]), 24, rng)


REACH_TASKS = (
    WorkedTask("countdown", _countdown, DIFFICULTIES),
    WorkedTask("24", _twenty_four, DIFFICULTIES[1:]),
)
