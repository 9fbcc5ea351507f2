"""A strategy for estimates: of the numbers that the thoughts come to, the middle one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from ponder.server.strategies.protocol import Answer, Parallel, Score, vote


class Median(Parallel):
    """For `answer` "number". Of two in the middle the smaller; without any number the first."""

    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int:
        vote(answers)
        numbers = [(Fraction(one.says), place) for place, one in enumerate(answers) if one.votes]
        if numbers:
            return sorted(numbers)[(len(numbers) - 1) // 2][1]
        return next(place for place, one in enumerate(answers) if not one.failed)
