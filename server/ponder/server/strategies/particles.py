"""Thoughts that are copied or dropped while they think, as their answers promise.

Particle filtering (Puri et al., arXiv 2502.01618; its_hub): at the end of each segment particles
are drawn anew, in proportion to their weights. Differences from the paper:

- Weights. In the paper a process reward model scores each step, and the softmax of its log-odds is
  the weight. Here a greedy probe samples what a thought would answer. The weight is the verifier's
  score of that answer or, without a verifier, the number of thoughts that would answer, or have
  answered, the same. A thought whose probe failed has the others' mean weight.
- Segments have equal length instead of one step, so that all thoughts have used the same part of
  the shared budget.
- Resampling is systematic, which keeps every particle of average weight; the paper's is
  multinomial. A thought that has ended leaves the filter with its answer.
- The answer with the highest score wins, or with the most votes; the paper takes the likeliest
  particle.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean
from typing import ClassVar

from ponder.protocol.fields import StrategyAsk
from ponder.server.strategies.best_of import judge
from ponder.server.strategies.protocol import Answer, Meeting, Score, best, vote


class Particles:
    """Draws the thoughts that still think anew, every `interval` tokens."""

    needs_verifier: ClassVar[bool] = False

    def __init__(self, asked: StrategyAsk) -> None:
        self.interval: float = asked.interval

    async def meet(self, meeting: Meeting, score: Score | None) -> None:
        places = meeting.thinking
        if len(places) < 2:
            return
        probed = await meeting.probe()
        if score is None:
            vote([*probed, *meeting.answers])
        else:
            await judge([answer for answer in probed if not answer.failed], score)
        weights = weigh(probed, scored=score is not None)
        counts = systematic(weights, meeting.random.random())
        spare = [place for place, count in zip(places, counts, strict=True) if not count]
        for source, count in zip(places, counts, strict=True):
            for _ in range(count - 1):
                await meeting.copy(source, spare.pop(0))

    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int:
        if score is not None:
            await judge([answer for answer in answers if not answer.failed], score)
        vote(answers)
        return best(answers)


def weigh(probed: Sequence[Answer], *, scored: bool) -> list[float]:
    """The weights of thoughts by what they would answer: their scores, or their votes.

    Of a thought without an answer or without a score nothing is known: it has the others' mean.

        >>> weigh([Answer("3", "3", votes=2), Answer("", "", failed=True)], scored=False)
        [2.0, 2.0]
    """
    known = [
        None if answer.failed else answer.score if scored else float(answer.votes)
        for answer in probed
    ]
    told = [weight for weight in known if weight is not None]
    usual = fmean(told) if told else 1.0
    return [usual if weight is None else weight for weight in known]


def systematic(weights: Sequence[float], start: float) -> list[int]:
    """How often each of n is drawn: n equally spaced draws from a `start` in [0, 1).

    Each is drawn n · weight / total times, rounded up or down; once, if all weights are 0.

        >>> systematic([1.0, 0.0, 3.0, 0.0], 0.5)
        [1, 0, 3, 0]
    """
    size, total = len(weights), sum(weights)
    if total <= 0:
        return [1] * size
    counts, drawn = [], 0
    for upto in accumulate(weights):
        before = drawn
        while drawn < size and (drawn + start) * total < upto * size:
            drawn += 1
        counts.append(drawn - before)
    last = max(place for place, weight in enumerate(weights) if weight)
    counts[last] += size - drawn  # the draws lost by rounding
    return counts
