"""The answer that the operator's verifier scores highest (best of n)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from ponder.server.strategies.protocol import Answer, Parallel, Score, best, vote


class BestOf(Parallel):
    """Chooses the highest score; among equals most votes, then the first.

    An answer without a score ranks behind all that have one.
    """

    needs_verifier: ClassVar[bool] = True

    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int:
        assert score is not None
        await judge([answer for answer in answers if not answer.failed], score)
        vote(answers)
        return best(answers)


async def judge(answers: Sequence[Answer], score: Score) -> None:
    """Have the verifier score answers, each text once."""
    texts = list(dict.fromkeys(answer.text for answer in answers))
    scores = dict(zip(texts, await asyncio.gather(*map(score, texts)), strict=True))
    for answer in answers:
        answer.score = scores[answer.text]
