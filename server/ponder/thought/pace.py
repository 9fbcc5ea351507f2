"""Measures how fast an engine gave tokens lately, and how long answers were."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Self, TypeVar

FIRSTS = 64
GAPS = 512
ANSWERS = 64
SHARE = 0.9
FRESH_SECONDS = 30.0
"""How long a measurement counts: an engine's speed under load says little of it afterwards."""

Number = TypeVar("Number", int, float)
Samples = deque[tuple[float, float]]
"""(when, seconds)"""


class Pace:
    """The last times of an engine: from a request to its first token, and from token to token.

    `seconds` uses the 90th percentile of the last 64 times to a first token and of the last 512
    between tokens. Times older than 30 seconds do not count; if all are older, the newest counts
    alone. Once the engine has given no token for 30 seconds, none counts. An unknown time counts as
    0. The time to a first token includes the engine's queue. `now` is in seconds of the thoughts'
    clock. Forks of a thought share the pace of their engine.

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

    def first(self, seconds: float, now: float) -> None:
        """Record that a request got its first tokens after `seconds`."""
        self._firsts.append((now, seconds))
        self._heard_at = now

    def later(self, seconds: float, tokens: int, now: float) -> None:
        """Record `tokens` more, `seconds` after the ones before; an engine may gather several."""
        if tokens:
            self._gaps.append((now, seconds / tokens))
            self._heard_at = now

    def answered(self, tokens: int) -> None:
        """Record the length of an answer that ended."""
        self._answers.append(tokens)

    def seconds(self, tokens: int, now: float) -> float:
        """The expected seconds that a request for `tokens` takes."""
        first, gap = self._p90(self._firsts, now), self._p90(self._gaps, now)
        return (first or 0.0) + tokens * (gap or 0.0)

    def tokens(self, seconds: float, now: float) -> int | None:
        """The tokens that a request is expected to give in `seconds`; None if unknown."""
        first, gap = self._p90(self._firsts, now), self._p90(self._gaps, now)
        return max(0, math.floor((seconds - (first or 0.0)) / gap)) if gap else None

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
