"""Extracts the final number or text of an answer, and compares it with the reference."""

from __future__ import annotations

import re
from collections import deque

# Digits may be grouped by commas ("1,250"); a minus counts only where no digit stands before it.
_NUMBER = re.compile(r"(?<![\d.])-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)")
GROUPED = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
"""Typesetters' spaces and commas between groups of digits."""
# Typesetters' minus; those spaces and commas; a minus before a currency, or before a space after an
# equals sign.
_SPELLINGS = (
    (re.compile("[\u2212\u2013](?=[\\\\$€£ \\d.])"), "-"),
    (GROUPED, ""),
    (re.compile(r"-\\?[$€£] ?(?=[\d.])"), "-"),
    (re.compile(r"= *- +(?=[\d.])"), "= -"),
)
# A denominator, an exponent, a root, a multiple of a root or of pi: the number is not the value.
_BEFORE_PART = re.compile(
    r"(?:[/^\u2044\u221a]|\^\{|\}\{|\\[dt]?frac(?:\{?|\{[^{}]*\})|\\sqrt(?:\[\w*\])?\{?|\d[eE][+-]?)$"
)
_AFTER_PART = re.compile(r" *(?:\\(?:pi\b|sqrt)|[\u03c0\u221a])")
_NEAR = 64  # characters before a number that may make it a part

_OPENED, _CLOSED = "<answer>", "</answer>"
_STATED = re.compile(r"\banswer\**(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)


def final_number(text: str) -> str | None:
    """The last number in `text` without grouping commas or leading zeros.

    None without a number, and where the last is only a part of a value: 3/2 is not 2.
    """
    for spelling, plain in _SPELLINGS:
        text = spelling.sub(plain, text)
    numbers = deque(_NUMBER.finditer(text), maxlen=1)
    if not numbers or _AFTER_PART.match(text, numbers[0].end()):
        return None
    (last,) = numbers
    if _BEFORE_PART.search(text[max(0, last.start() - _NEAR) : last.start()].rstrip()):
        return None
    number = last.group().replace(",", "")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, dot, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    value = f"{whole}{dot}{fraction}" if fraction else whole
    return value if value == "0" else sign + value


def same_number(answer: str, text: str) -> bool:
    """Whether the last number in `text` equals the last in `answer`, which must hold a number."""
    number = final_number(answer)
    return number is not None and final_number(text) == number


def final_answer(text: str) -> str:
    """The answer to which `text` commits, without the words around it.

    The text inside the last `<answer>` tags; else the text after the last "answer is", "answer:" or
    "answer is:", without bold type and a full stop at the end; else the whole text.
    """
    tagged, _, _ = text.rpartition(_CLOSED)
    if _OPENED in tagged:
        return tagged.rpartition(_OPENED)[2].strip()
    *before, stated = _STATED.split(text)
    stated = stated.strip()
    return stated.removesuffix(".").strip("* \n").removesuffix(".") if before else stated


def same_text(answer: str, text: str) -> bool:
    """Whether `text` commits to exactly `answer`, apart from a full stop that ends a sentence."""
    reference = answer.strip()
    return final_answer(text) in (reference, reference.removesuffix(".") or reference)
