"""What a probe answered, so that two answers that say the same are equal: the table of ways."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

from ponder.thought.exits.exit import Found

Normalise = Callable[[Found], str]
"""The answer that a probe found; empty where it found none."""

_NUMBER = re.compile(r"(?<![\d.])-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?")
_LETTER = re.compile(r"\b[A-J]\b(?!')")


def number(found: Found) -> str:
    """The last number, without grouping commas or zeros that say nothing.

    A number at the end of an answer that was cut may go on, and is none.
    """
    text = found.text.replace("\u2212", "-")  # the minus of typesetters
    said = [one for one in _NUMBER.finditer(text) if found.whole or one.end() < len(text)]
    if not said:
        return ""
    value = said[-1].group().replace(",", "")
    sign, digits = ("-", value[1:]) if value.startswith("-") else ("", value)
    if "/" not in digits and "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    digits = digits.lstrip("0")
    if not digits or digits[0] in "./":
        digits = f"0{digits}"
    return digits if digits == "0" else sign + digits


def letter(found: Found) -> str:
    """The last capital from A to J that stands alone, as of a multiple choice."""
    said = _LETTER.findall(found.text)
    return said[-1] if said else ""


def exact(found: Found) -> str:
    """The first line, but for case, blanks and the full stop at its end."""
    line = next(filter(None, map(str.strip, found.text.splitlines())), "")
    return " ".join(line.casefold().split()).rstrip(".")


def document(found: Found) -> str:
    """The whole answer as JSON, whatever its blanks and the order of its keys."""
    try:
        return json.dumps(json.loads(found.text), sort_keys=True)
    except (ValueError, RecursionError):  # it is none, or deeper than anybody compares
        return ""


NORMALISERS: Mapping[str, Normalise] = {
    "number": number,
    "letter": letter,
    "exact": exact,
    "json": document,
}


def agreeing(answers: Sequence[str]) -> int:
    """How many of the last answers are equal; none where the last is empty."""
    if not answers or not answers[-1]:
        return 0
    return sum(1 for _ in takewhile(answers[-1].__eq__, reversed(answers)))
