"""Closes a thought that repeats itself.

Reasoning models loop at low temperatures, distilled ones in up to a third of greedy answers, and a
higher temperature only masks it (arXiv 2512.12895). Only exact repetition is a loop here: a table,
a count or a list of cases that changes by one token in each line is not.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from ponder.thought.exits.exit import Close, GoOn, Progress

LONGEST = 128  # tokens that are repeated, at most
COPIES = 3
COVERED = 64  # tokens that the copies take together, at least
AFTER = 256  # tokens of thought before the first look
EVERY = 16  # tokens from one look to the next

_NUMBER = re.compile(r"\d+")
_SENTENCE = re.compile(r"[.!?]\s|[\n。！？]")

_OVERLAP = min(max(COPIES * period, COVERED) - period for period in range(1, LONGEST + 1))


@dataclass(frozen=True, slots=True)
class Loop:
    """Looks every 16 tokens, from `after` on."""

    after: int = AFTER

    def look(self, at: Progress) -> GoOn | Close:
        size = len(at.thinking)
        if size < self.after:
            return GoOn(tokens=self.after)
        return Close("loop") if repeats(at.thinking) else GoOn(tokens=size + EVERY)


def repeats(ids: Sequence[int]) -> bool:
    """Whether `ids` end in at least 3 copies of 1 to 128 tokens that cover at least 64.

    In a loop of period p, the last 2p tokens, and never fewer than 43, also occur p tokens earlier.
    The first search rejects nearly every text without a loop. If it finds a period with too few
    copies, a loop can only have a period above the length of the search: two periods within that
    length imply their greatest common divisor as a third (Fine and Wilf, 1965), and the smaller
    would have had enough copies.
    """
    least = 1
    while least <= LONGEST:
        size = max(_OVERLAP, (COPIES - 1) * least)
        period = _recurrence(ids, size, least)
        if period is None:
            return False
        covered = max(COPIES * period, COVERED)
        if len(ids) >= covered and ids[-covered:-period] == ids[period - covered :]:
            return True
        least = size + 1
    return False


def _recurrence(ids: Sequence[int], size: int, least: int) -> int | None:
    """The smallest shift from `least` on at which the last `size` tokens occur again, or None."""
    tail = array("I", ids[-size - LONGEST :])
    data, width = tail.tobytes(), tail.itemsize
    needle = data[-size * width :]
    end = len(data) - least * width
    while (at := data.rfind(needle, 0, end)) >= 0:
        shift, between_tokens = divmod(len(data) - len(needle) - at, width)
        if not between_tokens:
            return shift
        end = at + len(needle) - 1
    return None


def nearly_repeats(text: str) -> bool:
    """Whether the sentences and lines of `text`, numbers aside, occur 3 times or more on average.

    So does a thought that repeats one check with other numbers, but also a table or a count: good
    for a statistic, no reason to close a thought.
    """
    said = [part for part in map(str.strip, _SENTENCE.split(_NUMBER.sub("0", text))) if part]
    return len(said) > COPIES and len(said) >= COPIES * len(set(said))
