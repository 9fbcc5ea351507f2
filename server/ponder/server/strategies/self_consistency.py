"""The answer that most thoughts come to.

Self-consistency (Wang et al., arXiv 2203.11171): thoughts are sampled apart from each other, and
their answers vote. All votes weigh the same; DeepConf (2508.15260) weighs them by the thoughts' log
probabilities, which Ponder does not request from the engine here.
"""

from __future__ import annotations

from collections.abc import Sequence

from ponder.server.strategies.protocol import Answer, Parallel, Score, best, vote


class SelfConsistency(Parallel):
    """Chooses most votes; among equals the first thought's answer.

    >>> import asyncio
    >>> from ponder.protocol.fields import StrategyAsk
    >>> answers = [Answer("It is 7.", "7"), Answer("It is 8.", "8"), Answer("8", "8")]
    >>> voting = SelfConsistency(StrategyAsk(method="self_consistency", n=3))
    >>> asyncio.run(voting.choose(answers, None)), answers[1].votes
    (1, 2)
    """

    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int:
        vote(answers)
        return best(answers)
