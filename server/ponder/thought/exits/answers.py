"""Ways to normalise a probe's answer, so that two answers with the same meaning are equal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

from ponder.thought.exits.exit import Found

Normalise = Callable[[Found], str]
"""From a probe's result to its normalised answer; empty where there is none."""

_NUMBER = re.compile(r"(?<![\d.])-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?")
_LETTER = re.compile(r"\b[A-J]\b(?!')")


def number(found: Found) -> str:
    """The last number, without grouping commas or redundant zeros.

    A number at the end of a truncated answer may be incomplete, and does not count.
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
    """The last capital from A to J that stands alone, as in multiple choice."""
    said = _LETTER.findall(found.text)
    return said[-1] if said else ""


def exact(found: Found) -> str:
    """The first line without case, extra blanks and the full stop at its end."""
    line = next(filter(None, map(str.strip, found.text.splitlines())), "")
    return " ".join(line.casefold().split()).rstrip(".")


def document(found: Found) -> str:
    """The whole answer as JSON, with keys in order and blanks normalised; empty if it is none."""
    try:
        return json.dumps(json.loads(found.text), sort_keys=True)
    except (ValueError, RecursionError):  # no JSON, or nested too deeply to parse
        return ""


NORMALISERS: Mapping[str, Normalise] = {
    "number": number,
    "letter": letter,
    "exact": exact,
    "json": document,
}


def agreeing(answers: Sequence[str]) -> int:
    """How many of the last answers are equal; 0 where the last is empty."""
    if not answers or not answers[-1]:
        return 0
    return sum(1 for _ in takewhile(answers[-1].__eq__, reversed(answers)))
