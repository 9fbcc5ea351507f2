"""Closes a thought that repeats itself.

Reasoning models loop at low temperatures, distilled ones in up to a third of greedy answers, and a
higher temperature only masks it (arXiv 2512.12895). Only exact repetition is a loop here: a table,
a count or a list of cases that changes by one token in each line is not.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from ponder.thought.exits.exit import Close, GoOn, Progress

LONGEST = 128  # tokens that are repeated, at most
COPIES = 3
COVERED = 64  # tokens that the copies take together, at least
AFTER = 256  # tokens of thought before the first look
EVERY = 16  # tokens from one look to the next

_NUMBER = re.compile(r"\d+")
_SENTENCE = re.compile(r"[.!?]\s|[\n。！？]")

_OVERLAP = min(max(COPIES * period, COVERED) - period for period in range(1, LONGEST + 1))


@dataclass(slots=True)
class Loop:
    """Looks every 16 tokens, from `after` on, and closes a loop between two of its copies.

    A copy begins with the line or sentence in which the thought began to repeat itself. One copy
    tells where the others end, and the thought is closed at the end of the next; if no line or
    sentence ends in a copy, after the first. A thought that is cut within a copy, just as it starts
    to check its result again, is often answered wrong (docs/benchmark.md).

        >>> exit = Loop(after=60)
        >>> exit.look(Progress([*range(10), *[7, 8, 9] * 30]))
        GoOn(tokens=103, clean=100, time=inf)
        >>> exit.look(Progress([*range(10), *[7, 8, 9] * 31]))
        Close(cause='loop')
    """

    after: int = AFTER
    _period: int = field(default=0, init=False)  # of the loop that was found, or 0
    _begin: int = field(default=0, init=False)  # tokens of thought before its first copy
    _found: int = field(default=0, init=False)  # tokens of thought when it was found
    _end: int = field(default=0, init=False)  # where a copy ends, or `_found` if none is seen to

    def look(self, at: Progress) -> GoOn | Close:
        ids, size = at.thinking, len(at.thinking)
        if size < self.after:
            return GoOn(tokens=self.after)
        period = loop_period(ids)
        if period is None:
            self._period = 0
            return GoOn(tokens=size + EVERY)
        if not self._period:
            self._period, self._begin = period, _repeated_from(ids, period)
            self._found = self._end = size
        elif at.clean and (self._end == self._found or self._into(size) > self._into(self._end)):
            self._end = size
        watched = self._found + self._period
        if size < watched:
            return GoOn(tokens=watched, clean=size)
        close = self._end + self._period
        return Close("loop") if size >= close else GoOn(tokens=close)

    def _into(self, size: int) -> int:
        """How many tokens of a copy lie before this place: 1 to the period."""
        return (size - self._begin - 1) % self._period + 1


def loop_period(ids: Sequence[int]) -> int | None:
    """The least period of the loop that `ids` end in, or None.

    A loop is at least 3 copies of 1 to 128 tokens that cover at least 64. In a loop of period p,
    the last 2p tokens, and never fewer than 43, also occur p tokens earlier. The first search
    rejects nearly every text without a loop. If it finds a period with too few copies, a loop can
    only have a period above the length of the search: two periods within that length imply their
    greatest common divisor as a third (Fine and Wilf, 1965), and the smaller would have had enough
    copies.
    """
    least = 1
    while least <= LONGEST:
        size = max(_OVERLAP, (COPIES - 1) * least)
        period = _recurrence(ids, size, least)
        if period is None:
            return None
        covered = max(COPIES * period, COVERED)
        if len(ids) >= covered and ids[-covered:-period] == ids[period - covered :]:
            return period
        least = size + 1
    return None


def _repeated_from(ids: Sequence[int], period: int) -> int:
    """Where the loop begins in which `ids` end: tokens before its first copy."""
    begin = len(ids) - period
    while begin and ids[begin - 1] == ids[begin - 1 + period]:
        begin -= 1
    return begin


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
