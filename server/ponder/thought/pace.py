"""Measures how fast an engine gave tokens lately, and how long answers were."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Self, TypeVar

FIRSTS = 64
SPANS = 64
SPAN, SPAN_SECONDS = 16, 0.25
"""How many tokens a driver measures at once, unless they take longer. A deadline needs the sum of
many gaps, which varies less than each of them."""
ANSWERS = 64
SHARE = 0.9
FRESH_SECONDS = 30.0
"""How long a measurement counts: an engine's speed under load says little of it afterwards."""
JUDGED, LEAST_JUDGED = 1000, 499
LATE_SHARE = 0.002
UNJUDGED, LEAST, MOST = 2.0, 1.25, 4.0
"""The safety of a new engine, and its bounds. The least leaves time for the reply's way out."""

Number = TypeVar("Number", int, float)
Samples = deque[tuple[float, float]]
"""(when, seconds)"""


class Foreseen(NamedTuple):
    """The expected seconds to a request's first token and from each to the next; 0 if unknown."""

    first: float
    gap: float

    def seconds(self, tokens: int) -> float:
        """How long a request for so many tokens takes."""
        return self.first + tokens * self.gap


class Pace:
    """The last times of an engine: from a request to its first token, and from token to token.

    Estimates use the 90th percentile of the last 64 of each; a time from token to token is a mean
    over 16 tokens, those of a quarter of a second, or a request's last ones. Times older than 30
    seconds do not count; if all are older, the newest counts alone. Once the engine has given no
    token for 30 seconds, none counts. An unknown time counts as 0. The time to a first token
    includes the engine's queue. A request that continues a thought has first tokens of its own
    kind, since the engine has read its prompt before; without one in the last 30 seconds, those of
    all other requests count.

    `safety` is how many times longer than expected an answer may take. At most 1 in 500 answers
    takes longer than that, if the next is like the last 1,000: split conformal prediction (Lei et
    al., arXiv 1604.04173, section 2.2) of seconds taken over seconds expected. It is 2 before 499
    answers, and always between 1.25 and 4.

    `now` is in seconds of the thoughts' clock. Forks of a thought share the pace of their engine.

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
        self._continued: Samples = deque(maxlen=FIRSTS)
        self._gaps: Samples = deque(maxlen=SPANS)
        self._answers: deque[int] = deque(maxlen=ANSWERS)
        self._ratios: deque[float] = deque(maxlen=JUDGED)
        self._safety: float | None = UNJUDGED  # None: to be computed anew
        self._heard_at = 0.0

    def first(self, seconds: float, now: float, *, continues: bool = False) -> None:
        """Record that a request got its first tokens after `seconds`."""
        (self._continued if continues else self._firsts).append((now, seconds))
        self._heard_at = now

    def later(self, seconds: float, tokens: int, now: float) -> None:
        """Record `tokens` more, `seconds` after the ones before; an engine may gather several."""
        if tokens:
            self._gaps.append((now, seconds / tokens))
            self._heard_at = now

    def answered(self, tokens: int) -> None:
        """Record the length of an answer that ended."""
        self._answers.append(tokens)

    def foresee(self, now: float, *, continues: bool = False) -> Foreseen:
        """How fast a request that begins now is expected to be."""
        first = _at_share(_fresh(self._continued, now)) if continues else None
        if first is None:
            first = self._p90(self._firsts, now)
        return Foreseen(first or 0.0, self._p90(self._gaps, now) or 0.0)

    def seconds(self, tokens: int, now: float, *, continues: bool = False) -> float:
        """The expected seconds that a request for `tokens` takes."""
        return self.foresee(now, continues=continues).seconds(tokens)

    def judge(self, foreseen: Foreseen, tokens: int, seconds: float) -> None:
        """Record that a request for an answer of `tokens` took `seconds`."""
        if foreseen.gap:
            self._ratios.append(seconds / foreseen.seconds(tokens))
            self._safety = None

    @property
    def safety(self) -> float:
        """How many times longer than expected an answer may take."""
        if (safety := self._safety) is None:  # another thread may ask, too
            self._safety = safety = _conformal(self._ratios)
        return safety

    def tokens(self, seconds: float, now: float) -> int | None:
        """The tokens that a request is expected to give in `seconds`; None if unknown."""
        first, gap = self.foresee(now)
        return max(0, math.floor((seconds - first) / gap)) if gap else None

    @property
    def answer(self) -> int | None:
        """Tokens that nine answers in ten did with, of the last 64; None where there was none."""
        return _at_share(self._answers)

    def _p90(self, samples: Samples, now: float) -> float | None:
        fresh = _fresh(samples, now)
        if not fresh and now - self._heard_at <= FRESH_SECONDS:
            fresh = [seconds for _, seconds in list(samples)[-1:]]
        return _at_share(fresh)

    def __deepcopy__(self, _memo: object) -> Self:
        return self


class Timing:
    """Measures one request of a thought, asked at `now`, for the pace of its engine.

    It `answers` if it asks for the answer alone, and `continues` what the engine has read before.
    """

    def __init__(self, pace: Pace, now: float, *, continues: bool, answers: bool) -> None:
        self._pace, self._asked_at, self._continues = pace, now, continues
        self._foreseen = pace.foresee(now, continues=continues) if answers else None
        self._heard_at: float | None = None
        self._span = 0

    def heard(self, tokens: int, now: float, *, last: bool) -> None:
        """A chunk of `tokens` has come."""
        if self._heard_at is None:
            self._pace.first(now - self._asked_at, now, continues=self._continues)
            self._heard_at = now
            return
        self._span += tokens
        if self._span >= SPAN or now - self._heard_at >= SPAN_SECONDS or last:
            self._pace.later(now - self._heard_at, self._span, now)
            self._heard_at, self._span = now, 0

    def over(self, tokens: int, now: float) -> None:
        """The request has ended after `tokens`; only the first call of this or the next counts."""
        if self._foreseen is not None:
            self._pace.judge(self._foreseen, tokens, now - self._asked_at)
            self._foreseen = None

    def given_up(self, tokens: int, now: float) -> None:
        """The request failed, or nobody waits for it any more: one that was not late says nothing
        of how long it would have taken.
        """
        foreseen, seconds = self._foreseen, now - self._asked_at
        if foreseen is not None and seconds > self._pace.safety * foreseen.seconds(tokens):
            self.over(tokens, now)


def _fresh(samples: Samples, now: float) -> list[float]:
    """The seconds of those that still count."""
    taken = list(samples)  # at once: a server plans in another thread than it measures in
    return [seconds for at, seconds in taken if now - at <= FRESH_SECONDS]


def _at_share(values: Iterable[Number]) -> Number | None:
    """The least of the values that is not below nine in ten of them."""
    ordered = sorted(values)
    return ordered[math.ceil(SHARE * len(ordered)) - 1] if ordered else None


def _conformal(ratios: Iterable[float]) -> float:
    """What the next ratio exceeds with a probability of at most `LATE_SHARE`, within bounds."""
    ordered = sorted(ratios)
    if len(ordered) < LEAST_JUDGED:
        return UNJUDGED
    rank = math.ceil((1 - LATE_SHARE) * (len(ordered) + 1))
    return min(MOST, max(LEAST, ordered[rank - 1]))
