"""The answer that most thoughts come to.

Self-consistency (Wang et al., arXiv 2203.11171): thoughts are sampled apart from each other, and
their answers vote. Every vote is one; DeepConf (2508.15260) weighs them by the log probabilities of
the thoughts, which are not asked for here.
"""

from __future__ import annotations

from collections.abc import Sequence

from ponder.server.strategies.protocol import Answer, Parallel, Score, best, vote


class SelfConsistency(Parallel):
    """Most votes; of these the first thought's answer.

    >>> import asyncio
    >>> answers = [Answer("It is 7.", "7"), Answer("It is 8.", "8"), Answer("8", "8")]
    >>> asyncio.run(SelfConsistency().choose(answers, None)), answers[1].votes
    (1, 2)
    """

    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int:
        vote(answers)
        return best(answers)
