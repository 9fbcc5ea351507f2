"""Exact match on the final number of an answer."""

from __future__ import annotations

import re

# Digits may be grouped by commas ("1,250"); a minus counts only where no digit stands before it.
_NUMBER = re.compile(r"(?<![\d.])-?\d+(?:,\d{3})*(?:\.\d+)?")


def final_number(text: str) -> str | None:
    """The last number in `text` without grouping commas or leading zeros; None without any."""
    numbers: list[str] = _NUMBER.findall(text)
    if not numbers:
        return None
    number = numbers[-1].replace(",", "")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    whole, dot, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    value = f"{whole}{dot}{fraction}" if fraction else whole
    return value if value == "0" else sign + value


def same_number(answer: str, text: str) -> bool:
    """Whether the last number in `text` is exactly `answer`."""
    return final_number(text) == final_number(answer)
