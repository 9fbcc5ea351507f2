"""The verifier's scores of answers, into the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from prometheus_client import Counter

from ponder.experiment.holdout import Assignment
from ponder.experiment.ledger import Ledger
from ponder.experiment.store import Entry
from ponder.server.completion import Completion
from ponder.server.observers.protocol import Observer, Watch
from ponder.server.observers.verifier import REASONS, Verifier, VerifierFailure
from ponder.thought.answer import AnswerDelta
from ponder.thought.thought import Event

logger = logging.getLogger(__name__)


class Judging(Observer):
    """Has the verifier score the answers of every request, in the background.

    A missing score is counted, and does not enter the mean.
    """

    def __init__(self, verifier: Verifier, ledger: Ledger) -> None:
        self._verifier = verifier
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = Counter(
            "ponder_verifier_failures_total",
            "Answers that the verifier failed to score, by reason",
            ["reason"],
            registry=None,
        )
        for reason in REASONS:  # zeros: without them Prometheus misses the first increase
            self._failures.labels(reason)
        self.collectors = (self._failures,)

    def began(self, completion: Completion) -> Watch:
        answers: list[list[str]] = [[] for _ in range(completion.request.choices)]
        turns = [completion.turns(index) for index in range(completion.request.choices)]
        assignments = completion.assignments

        def heard(index: int, event: Event) -> None:
            if isinstance(event, AnswerDelta):
                answers[index].append(event.text)

        def ended(error: BaseException | None) -> None:
            if error is not None:
                return
            texts = ["".join(answer) for answer in answers]
            task = asyncio.create_task(self._judge(turns, texts, assignments))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return Watch(ended, heard)

    async def score(
        self, asked: Sequence[Mapping[str, str]], answer: str, *, awaited: bool = True
    ) -> float | None:
        """The verifier's score; None without one. A failure of the verifier is counted.

        A score that a request has `awaited` comes before those of answers that were sent.
        """
        try:
            return await self._verifier.score(asked, answer, awaited=awaited)
        except VerifierFailure as failure:
            logger.warning("%s", failure)
            self._failures.labels(failure.reason).inc()
            return None

    async def settled(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> str:
        for task in self._tasks:
            task.cancel()
        return f"the answers of {len(self._tasks)} requests go without the verifier's score"

    async def _judge(
        self,
        turns: Sequence[Sequence[Mapping[str, str]]],
        answers: Sequence[str],
        assignments: Sequence[Assignment],
    ) -> None:
        scores: list[float] = []

        async def judge(asked: Sequence[Mapping[str, str]], answer: str) -> None:
            if (score := await self.score(asked, answer, awaited=False)) is not None:
                scores.append(score)

        try:
            await asyncio.gather(*map(judge, turns, answers))
        finally:
            if scores:
                measures = {"verifier": (float(len(scores)), sum(scores))}
                for assignment in assignments:
                    self._ledger.record(Entry(assignment, measures))
