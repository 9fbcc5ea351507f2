"""How fast an engine has given tokens of late, and how long answers have been."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Self, TypeVar

FIRSTS = 64
GAPS = 64
ANSWERS = 64
SHARE = 0.9
FRESH_SECONDS = 30.0
"""How long a time counts: what an engine did under load says little of it afterwards."""
MOST, LEAST = 2.0, 1.0
LATE_SHARE = 0.005
STEP = 0.1

Number = TypeVar("Number", int, float)
Samples = deque[tuple[float, float]]
"""(when, seconds)"""


class Foreseen(NamedTuple):
    """Seconds to a request's first token, and from each token to the next; 0 where unknown."""

    first: float
    gap: float

    def seconds(self, tokens: int) -> float:
        """How long a request for so many tokens takes."""
        return self.first + tokens * self.gap


class Pace:
    """The last times of an engine: from a request to its first token, and from token to token.

    `seconds` reckons with what nine in ten of the last 64 of each took. Of those that are older
    than 30 seconds the newest alone counts, and none once the engine has given no token for as
    long; what is not known counts as no time at all. Whoever waits in the engine's queue waits for
    a first token.

    `safety` is the factor by which an answer may take longer than `seconds` says. It begins at 2
    and is learnt from answers: one that took longer raises it by almost 0.1, one that did not
    lowers it by 0.0005, so that in the long run 1 in 200 takes longer (adaptive conformal
    inference, arXiv 2106.00170, equation 2). It stays between 1 and 2.

    `now` is in seconds of the clock that the thoughts are lived by. Forks of a
    thought share the pace of their engine.

        >>> pace = Pace()
        >>> pace.seconds(24, now=10.0)
        0.0
        >>> pace.first(0.25, now=10.0)
        >>> pace.later(1.25, 10, now=10.5)
        >>> pace.seconds(24, now=11.0)
        3.25
        >>> pace.tokens(1.0, now=11.0)
        6
        >>> pace.seconds(24, now=99.0)
        0.0
    """

    def __init__(self) -> None:
        self._firsts: Samples = deque(maxlen=FIRSTS)
        self._gaps: Samples = deque(maxlen=GAPS)
        self._answers: deque[int] = deque(maxlen=ANSWERS)
        self._heard_at = 0.0
        self.safety = MOST

    def first(self, seconds: float, now: float) -> None:
        """A request has its first tokens after `seconds`."""
        self._firsts.append((now, seconds))
        self._heard_at = now

    def later(self, seconds: float, tokens: int, now: float) -> None:
        """It has `tokens` more, `seconds` after those before: an engine may gather them."""
        if tokens:
            self._gaps.append((now, seconds / tokens))
            self._heard_at = now

    def answered(self, tokens: int) -> None:
        """An answer has come to its end."""
        self._answers.append(tokens)

    def foresee(self, now: float) -> Foreseen:
        """How fast a request that begins now will be."""
        first, gap = self._p90(self._firsts, now), self._p90(self._gaps, now)
        return Foreseen(first or 0.0, gap or 0.0)

    def judge(self, foreseen: Foreseen, tokens: int, seconds: float) -> None:
        """Learn from a request for an answer of `tokens`, which took `seconds`."""
        if foreseen.gap:
            late = seconds > self.safety * foreseen.seconds(tokens)
            step = STEP * ((1.0 if late else 0.0) - LATE_SHARE)
            self.safety = min(MOST, max(LEAST, self.safety + step))

    def seconds(self, tokens: int, now: float) -> float:
        """How long a request for so many tokens takes."""
        return self.foresee(now).seconds(tokens)

    def tokens(self, seconds: float, now: float) -> int | None:
        """How many tokens a request for as many as fit gives in `seconds`; None: nobody knows."""
        first, gap = self.foresee(now)
        return max(0, math.floor((seconds - first) / gap)) if gap else None

    @property
    def answer(self) -> int | None:
        """Tokens that nine answers in ten did with, of the last 64; None where there was none."""
        return _at_share(self._answers)

    def _p90(self, samples: Samples, now: float) -> float | None:
        taken = list(samples)  # at once: a server plans in another thread than it measures in
        fresh = [seconds for at, seconds in taken if now - at <= FRESH_SECONDS]
        if not fresh and now - self._heard_at <= FRESH_SECONDS:
            fresh = [seconds for _, seconds in taken[-1:]]
        return _at_share(fresh)

    def __deepcopy__(self, _memo: object) -> Self:
        return self


def _at_share(values: Iterable[Number]) -> Number | None:
    """The least of the values that is not below nine in ten of them."""
    ordered = sorted(values)
    return ordered[math.ceil(SHARE * len(ordered)) - 1] if ordered else None
