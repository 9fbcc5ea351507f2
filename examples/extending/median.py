"""A strategy for estimates: take the median of the thoughts' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ponder.server.strategies.protocol import Answer, Parallel, Score, vote


class Median(Parallel):
    """For `answer` "number". Of two middle numbers it takes the smaller.

    Without any number it takes the first answer that did not fail.
    """

    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int:
        vote(answers)
        numbers = [(Fraction(one.says), place) for place, one in enumerate(answers) if one.votes]
        if numbers:
            return sorted(numbers)[(len(numbers) - 1) // 2][1]
        return next(place for place, one in enumerate(answers) if not one.failed)
