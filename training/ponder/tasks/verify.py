"""Extracts the final number or text of an answer, and compares it with the reference."""

from __future__ import annotations

import re

# Digits may be grouped by commas ("1,250"); a minus counts only where no digit stands before it.
_NUMBER = re.compile(r"(?<![\d.])-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)")
# Marks before a number that is a denominator or an exponent.
_PARTS = ("/", "}{", "^", "^{")

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_STATED = re.compile(r"\banswer\**(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)


def final_number(text: str) -> str | None:
    """The last number in `text` without grouping commas or leading zeros.

    None without a number, and where the last is a denominator or an exponent: 3/2 is not 2.
    """
    text = text.replace("\u2212", "-")  # the minus of typesetters
    numbers = list(_NUMBER.finditer(text))
    if not numbers or text[: numbers[-1].start()].rstrip().endswith(_PARTS):
        return None
    number = numbers[-1].group().replace(",", "")
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
    if tagged := _TAGGED.findall(text):
        return str(tagged[-1]).strip()
    *before, stated = _STATED.split(text)
    stated = stated.strip()
    return stated.removesuffix(".").strip("* \n").removesuffix(".") if before else stated


def same_text(answer: str, text: str) -> bool:
    """Whether `text` commits to exactly `answer`, apart from a full stop that ends a sentence."""
    reference = answer.strip()
    return final_answer(text) in (reference, reference.removesuffix("."))
