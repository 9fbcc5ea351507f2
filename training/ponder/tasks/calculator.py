"""Problems too large for mental arithmetic, answered by a call of `calculate(expression)`.

Each has a product of two factors above 12, a quotient of one, or a number of four digits or more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

from .arithmetic import calculate
from .problems import Problem

FAMILY = "calculator"
DIFFICULTIES = (1, 2, 3, 4)

CALCULATE: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculate",
        "description": "Evaluate an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}
"""The tool, as chat templates list it."""

_SIGNS = {
    "+": ("+", "plus"),
    "-": ("-", "minus", "\u2212"),
    "*": ("*", "x", "×", "times", "multiplied by"),
    "/": ("/", "÷", "divided by"),
}
_ASKED = (
    "{}",
    "{} = ?",
    "What is {}?",
    "What is {}?",
    "What's {}?",
    "How much is {}?",
    "Compute {}.",
    "Calculate {}.",
    "Please work out {}.",
    "Tell me {}.",
    "Can you tell me what {} is?",
    "What does {} equal?",
    "Use the calculator: {}",
    "I need the exact value of {}.",
)
_NAMED = {
    "+": ("Add {} and {}.", "What is the sum of {} and {}?"),
    "-": ("Subtract {1} from {0}.", "What is the difference between {} and {}?"),
    "*": ("Multiply {} by {}.", "What is the product of {} and {}?"),
    "/": ("Divide {} by {}.", "How often does {1} go into {0}?"),
}
_TOLD = {
    "+": (
        "A town has {} people and {} more move in. How many people live there now?",
        "One shelf holds {} books and another holds {}. How many books are there?",
    ),
    "-": (
        "A shop has {} coins and spends {}. How many coins are left?",
        "There were {} people and {} went home. How many are still here?",
    ),
    "*": (
        "A box holds {} pens. How many pens are in {} boxes?",
        "One ticket costs {} euros. How much do {} tickets cost?",
        "{} people each buy {} apples. How many apples is that?",
    ),
    "/": (
        "{} cards are shared by {} players. How many cards does each one get?",
        "{} eggs are put into boxes of {}. How many boxes are there?",
    ),
}


@dataclass(frozen=True, slots=True)
class CalculatorTask:
    """The family as a `Task`: a problem of difficulty d has d operators."""

    name: str = FAMILY
    difficulties: tuple[int, ...] = DIFFICULTIES

    def sample(self, rng: Random, difficulty: int) -> Problem:
        if difficulty not in self.difficulties:
            raise ValueError(f"{self.name} has difficulties {self.difficulties}, not {difficulty}")
        parts = _pair(rng) if difficulty == 1 else _chain(rng, difficulty)
        expression = "".join(parts)
        value, _ = calculate(expression)
        question = _asked(rng, parts)
        content = expression.replace(" ", "")
        return Problem(
            f"{FAMILY}:{content}",
            FAMILY,
            difficulty,
            question,
            str(value),
            verifier="call",
            evidence=expression,
            tools=(CALCULATE,),
        )

    def verify(self, problem: Problem, text: str) -> bool:
        return same_value(problem.answer, text)


def written_call(name: str, arguments: str) -> str:
    """A call as Qwen3 writes it; `arguments` are JSON text."""
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'


def same_value(answer: str, text: str) -> bool:
    """Whether `text` makes one call whose one argument is an expression with the value `answer`.

    >>> same_value("182", written_call("calculate", '{"expression": "13 * 14"}'))
    True
    """
    _, *calls = text.split("<tool_call>")
    call, ended, _ = "".join(calls).partition("</tool_call>")
    if len(calls) != 1 or not ended:
        return False
    try:
        match json.loads(call):
            case {"name": "calculate", "arguments": {"expression": str(expression), **others}}:
                return not others and calculate(expression)[0] == Fraction(answer)
    except (ValueError, ZeroDivisionError, RecursionError):
        pass  # unreadable text has no value
    return False


def _digits(rng: Random, low: int, high: int) -> int:
    """A number of `low` to `high` digits, every number of digits as likely."""
    digits = rng.randint(low, high)
    return rng.randrange(10 ** (digits - 1), 10**digits)


def _factor(rng: Random, digits: int) -> int:
    return max(_digits(rng, 2, digits), 13)


def _pair(rng: Random) -> list[str]:
    """`["4821", " * ", "377"]`."""
    sign = rng.choices("+-*/", (0.2, 0.2, 0.45, 0.15))[0]
    if sign == "*":
        a, b = _factor(rng, 4), _factor(rng, 3)
        if rng.random() < 0.5:
            a, b = b, a
    elif sign == "/":
        b = _factor(rng, 3)
        a = b * _factor(rng, 3)
    else:
        a, b = _digits(rng, 4, 6), _digits(rng, 2, 6)
        if (sign == "-" and b > a) or (sign == "+" and rng.random() < 0.5):
            a, b = b, a
    return [str(a), f" {sign} ", str(b)]


def _chain(rng: Random, operators: int) -> list[str]:
    """Numbers and signs in turn; brackets, if any, are parts of the numbers."""
    large = rng.random() < 0.5
    signs = rng.choices("+-*", (0.35, 0.3, 0.35), k=operators)
    numbers = [_digits(rng, 1, 3) for _ in range(operators + 1)]
    at = rng.randrange(operators)
    if large:
        numbers[at] = _digits(rng, 4, 5)
    else:
        signs[at], numbers[at], numbers[at + 1] = "*", _factor(rng, 3), _factor(rng, 3)
    said = [str(number) for number in numbers]
    if rng.random() < 0.3:
        at = rng.randrange(operators)
        said[at], said[at + 1] = f"({said[at]}", f"{said[at + 1]})"
    return [said[0], *(p for s, n in zip(signs, said[1:], strict=True) for p in (f" {s} ", n))]


def _asked(rng: Random, parts: list[str]) -> str:
    if len(parts) == 3 and rng.random() < 0.3:
        told = rng.choice(rng.choice((_NAMED, _TOLD))[parts[1].strip()])
        return told.format(parts[0], parts[2])
    draw = rng.random()
    tight = draw < 0.25
    if draw > 0.6:  # in signs or words of people's own
        parts = [p if p.strip() not in _SIGNS else _sign(rng, p.strip()) for p in parts]
    text = "".join(parts)
    return rng.choice(_ASKED).format(text.replace(" ", "") if tight else text)


def _sign(rng: Random, sign: str) -> str:
    return f" {rng.choice(_SIGNS[sign])} "
