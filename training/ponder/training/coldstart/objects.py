"""Answers as JSON objects: requested by the question, or enforced by a grammar alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from random import Random

_ASKED = (
    "Answer as a JSON object.",
    "Reply with JSON.",
    "Answer in JSON only.",
    'Give me {{"{}": ...}}.',
    'Respond with a JSON object that has the key "{}".',
)
_KEY = "answer"
_KEYS = (_KEY, _KEY, _KEY, "result", "value", "number", "total", "sum", "solution", "x")
_ENFORCED = 0.5
_COMPACT = 0.3


@dataclass(frozen=True, slots=True)
class Object:
    """The form of an answer as an object; `enforced`: by a grammar, without a request."""

    key: str = _KEY
    enforced: bool = False
    separators: tuple[str, str] = (", ", ": ")

    def text(self, answer: str) -> str:
        """The answer as an object, a whole number as a number.

        >>> Object().text("33")
        '{"answer": 33}'
        """
        value = int(answer) if re.fullmatch(r"-?\d+", answer) else answer
        return json.dumps({self.key: value}, separators=self.separators)

    @property
    def given(self) -> int:
        """Leading characters that an enforcing grammar supplies, which the loss leaves out."""
        return len(f'{{"{self.key}') if self.enforced else 0


def with_object(question: str, rng: Random) -> tuple[str, Object]:
    """The question and its object's form; the question asks for it unless it is enforced."""
    key = rng.choice(_KEYS)
    if rng.random() < _ENFORCED:
        separators = (",", ":") if rng.random() < _COMPACT else (", ", ": ")
        return question, Object(key, True, separators)
    asked = rng.choice(_ASKED)
    return f"{question} {asked.format(key)}", Object(key if "{}" in asked else _KEY)
