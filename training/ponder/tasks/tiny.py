"""Five families of small problems, difficulty 1 to 7, each asked in several ways.

In `sum`, `word` and `equation` a thought is a chain, and half a chain is worth little. In `largest`
and `root` it is a search that always holds a best candidate, so half a thought already helps. The
answers are numbers with a wide range, so that guessing without thinking should fail.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

from .problems import Problem
from .worked import Step, Worked, WorkedTask

DIFFICULTIES = (1, 2, 3, 4, 5, 6, 7)
# A chain of difficulty d has d terms after its first, up to TERM_BOUNDS[d - 1]. So answers vary
# widely, and a few minutes on a CPU teach the easy chains well and the hard ones in part.
_FIRST_TERM = (10, 99)
_SMALLEST_TERM = 3
TERM_BOUNDS = (29, 29, 39, 49, 49, 59, 69)
# A `root` problem of difficulty d is searched below ROOT_BOUNDS[d - 1].
ROOT_BOUNDS = (12, 16, 20, 24, 32, 48, 64)


Terms = tuple[int, ...]  # signed: the first is positive, every running total is >= 0


def _later_term(rng: Random, difficulty: int) -> int:
    return rng.randint(_SMALLEST_TERM, TERM_BOUNDS[difficulty - 1])


def _draw_terms(rng: Random, difficulty: int, count: int, first: int | None = None) -> Terms:
    terms = [rng.randint(*_FIRST_TERM) if first is None else first]
    while len(terms) < count:
        term = _later_term(rng, difficulty)
        take = rng.random() < 0.45 and sum(terms) >= term
        terms.append(-term if take else term)
    return tuple(terms)


def _expression(terms: Terms) -> str:
    """`37 + 48 - 15`."""
    return str(terms[0]) + "".join(f" {'-' if t < 0 else '+'} {abs(t)}" for t in terms[1:])


def _running(terms: Terms) -> list[str]:
    """`["37 + 48 = 85", "85 - 15 = 70"]`."""
    totals = [sum(terms[: i + 1]) for i in range(len(terms))]
    return [
        f"{before} {'-' if term < 0 else '+'} {abs(term)} = {after}"
        for (before, after), term in zip(pairwise(totals), terms[1:], strict=True)
    ]


def _content(text: str) -> str:
    return text.replace(" ", "")


def _chain(family: str, difficulty: int, question: str, terms: Terms) -> Worked:
    expression = _expression(terms)
    lines = _running(terms)
    answer = str(sum(terms))
    return Worked(
        Problem(f"{family}:{_content(expression)}", family, difficulty, question, answer),
        expression,
        (*map(Step, lines[:-1]), Step(lines[-1], answer)),
        tuple(lines),
    )


def _sum(rng: Random, difficulty: int) -> Worked:
    terms = _draw_terms(rng, difficulty, difficulty + 1)
    asked = rng.choice(
        (
            "What is {}?",
            "Compute {}.",
            "Please work out {}.",
            "How much is {}?",
            "Calculate the value of {}.",
            "Can you tell me what {} equals?",
        )
    )
    return _chain("sum", difficulty, asked.format(_expression(terms)), terms)


_PEOPLE = (("Mia", "she"), ("Tom", "he"), ("Ana", "she"), ("Ben", "he"), ("Zoe", "she"))
_THINGS = ("apples", "coins", "books", "cards", "shells")
_MORE = ("gets {} more", "finds {} more", "buys {} more")
_FEWER = ("gives away {}", "loses {}", "sells {}")


def _word(rng: Random, difficulty: int) -> Worked:
    terms = _draw_terms(rng, difficulty, difficulty + 1)
    if rng.random() < 0.3:
        told = [f"A bus starts with {terms[0]} people."]
        told += [f"Then {abs(t)} get {'off' if t < 0 else 'on'}." for t in terms[1:]]
        asked = rng.choice(("How many people are on the bus now?", "How many people are left?"))
    else:
        name, pronoun = rng.choice(_PEOPLE)
        things = rng.choice(_THINGS)
        told = [f"{name} has {terms[0]} {things}."]
        for term in terms[1:]:
            deed = rng.choice(_FEWER if term < 0 else _MORE).format(abs(term))
            told.append(f"Then {pronoun} {deed}.")
        asked = rng.choice(
            (f"How many {things} does {name} have now?", f"How many {things} are there now?")
        )
    return _chain("word", difficulty, " ".join((*told, asked)), terms)


def _equation(rng: Random, difficulty: int) -> Worked:
    factor, x = rng.randint(2, 9), rng.randint(2, 30 if difficulty % 2 == 0 else 20)
    product = factor * x
    first = _later_term(rng, difficulty)
    constants = _draw_terms(rng, difficulty, 1 + (difficulty - 1) // 2, first)
    if rng.random() < 0.4 and product >= constants[0]:
        constants = (-constants[0], *(abs(c) for c in constants[1:]))
    terms = (product, *constants)
    total = sum(terms)
    tail = _expression(terms).split(" ", 1)[1]
    stated = f"{factor} * x {tail} = {total}"
    question = _ask_equation(rng, factor, constants, total, stated)
    undone = (total, *(-c for c in reversed(constants)))
    answer = str(x)
    solved = [*_running(undone), f"{product} / {factor} = {x}"]
    return Worked(
        Problem(f"equation:{_content(stated)}", "equation", difficulty, question, answer),
        stated,
        (*map(Step, solved[:-1]), Step(solved[-1], answer)),
        (f"{factor} * {x} = {product}", *_running(terms)),
    )


def _ask_equation(rng: Random, factor: int, constants: Terms, total: int, stated: str) -> str:
    if rng.random() < 0.6:
        asked = rng.choice(("Solve {} for x.", "What is x if {}?", "Find x: {}."))
        return asked.format(stated)
    deeds = ", ".join(f"{'subtract' if c < 0 else 'add'} {abs(c)}" for c in constants)
    return (
        f"I think of a number, multiply it by {factor}, {deeds} and get {total}. What is my number?"
    )


def _largest(rng: Random, difficulty: int) -> Worked:
    pairs: dict[int, str] = {}  # value -> expression; equal values would make the work ambiguous
    while len(pairs) < difficulty + 1:
        terms = _draw_terms(rng, difficulty, 2)
        pairs.setdefault(sum(terms), _expression(terms))
    answer = max(pairs)
    listed = ", ".join(pairs.values())
    asked = rng.choice(
        (
            "What is the largest value among {}?",
            "Compare {}. What is the largest value?",
            "Which value is the highest: {}?",
            "Find the maximum of {}.",
        )
    )
    values = list(pairs)
    steps = tuple(
        Step(f"{pairs[v]} = {v}, best {max(values[: i + 1])}", str(max(values[: i + 1])))
        for i, v in enumerate(values)
    )
    content = _content(listed)
    return Worked(
        Problem(f"largest:{content}", "largest", difficulty, asked.format(listed), str(answer)),
        listed,
        steps,
        tuple(f"{expression} = {value}" for value, expression in pairs.items()),
    )


def _root(rng: Random, difficulty: int) -> Worked:
    high = ROOT_BOUNDS[difficulty - 1]
    low = ROOT_BOUNDS[difficulty - 2] if difficulty > 1 else 2
    root = rng.randrange(low, high)
    n = rng.randint(root * root, (root + 1) ** 2 - 1)
    asked = rng.choice(
        (
            "What is the largest whole number whose square is at most {}?",
            "Find the whole part of the square root of {}.",
            "How long can the side of a square be, in whole units, if its area is at most {}?",
            "What is the integer square root of {}?",
        )
    )
    steps: list[Step] = []
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        square = middle * middle
        fits = square <= n
        low, high = (middle, high) if fits else (low, middle)
        # The area stands beside the square: comparing neighbours is easy to learn.
        verdict = "enough" if fits else "less"
        steps.append(Step(f"{middle} * {middle} = {square}, {n} is {verdict}, {low} to {high}"))
    answer = str(root)
    steps[-1] = Step(steps[-1].text, answer)
    return Worked(
        Problem(f"root:{n}", "root", difficulty, asked.format(n), answer),
        f"n * n at most {n}, 0 to {ROOT_BOUNDS[difficulty - 1]}",
        tuple(steps),
        tuple(
            f"{r} * {r} = {r * r}, {n} is {verdict}"
            for r, verdict in ((root, "enough"), (root + 1, "less"))
        ),
    )


TINY_TASKS: tuple[WorkedTask, ...] = (
    WorkedTask("sum", _sum, DIFFICULTIES),
    WorkedTask("word", _word, DIFFICULTIES),
    WorkedTask("equation", _equation, DIFFICULTIES),
    WorkedTask("largest", _largest, DIFFICULTIES),
    WorkedTask("root", _root, DIFFICULTIES),
)
