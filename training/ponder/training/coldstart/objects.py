"""Answers as JSON objects, where a question asks for one."""

from __future__ import annotations

import json
import re
from random import Random

_ASKED = (
    "Answer as a JSON object.",
    "Reply with JSON.",
    'Give me {"answer": ...}.',
    "Answer in JSON only.",
    'Respond with a JSON object that has the key "answer".',
)


def wants_object(question: str, rng: Random) -> str:
    """A question whose answer is to be an object."""
    return f"{question} {rng.choice(_ASKED)}"


def object_text(answer: str) -> str:
    """The answer as an object, a whole number as a number.

    >>> object_text("33")
    '{"answer": 33}'
    """
    return json.dumps({"answer": int(answer) if re.fullmatch(r"-?\d+", answer) else answer})
