"""The thoughts of one choice that share a budget, from their start to the answer that is given."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from time import perf_counter
from typing import Any

from ponder.checkpoint.chat import Prompt
from ponder.engine.protocol import Vocabulary
from ponder.protocol.errors import error_code
from ponder.protocol.fields import StrategyAsk
from ponder.protocol.response import StrategyAnswer, StrategyReport
from ponder.server.strategies.place import PARTS, Home, Place, total
from ponder.server.strategies.protocol import Answer, Score, Strategy
from ponder.server.strategies.table import STRATEGIES
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.answers import NORMALISERS
from ponder.thought.exits.budget import LENGTH_SOURCES
from ponder.thought.exits.exit import Exit, Found
from ponder.thought.exits.finish_now import FinishNow
from ponder.thought.exits.inquiry import Inquiry
from ponder.thought.exits.share import Share
from ponder.thought.outcome import Outcome
from ponder.thought.thought import Event, Thought


class Group:
    """The `n` thoughts of one prompt that share its plan's budget; they live in `home`.

    `make` makes the thought of a place, with exits beside its own. Each thought has an equal share,
    rounded down. Once all have used their shares or ended, what is left is divided equally among
    those that still think, and so on until there is less than a token for each. Speed does not
    matter, only tokens: the same seeds come to the same answer.

    `emit` gets the answer all at once, with its thought: until the choice nobody knows which
    thought that is. `outcome` is the outcome of the chosen thought, with the tokens of all.
    `score` is the operator's verifier, if there is one.
    """

    def __init__(
        self,
        asked: StrategyAsk,
        prompt: Prompt,
        home: Home,
        make: Callable[[int, Sequence[Exit]], Thought],
        emit: Callable[[Event], None],
        *,
        vocabulary: Vocabulary,
        score: Score | None,
        seed: int | None,
    ) -> None:
        assert prompt.close is not None
        self.random = Random(seed)
        self._asked = asked
        self._budget = prompt.plan.budget
        self._strategy: Strategy = STRATEGIES[asked.method](asked)
        self._emit = emit
        self._score = score
        self._normalise = NORMALISERS[asked.answer]
        self._prefix, prefix = prompt.close.prefix[1], None
        if asked.prefix is not None:
            self._prefix, prefix = asked.prefix, tuple(vocabulary.encode(asked.prefix))
        self._button = FinishNow()
        self._share = Share(cause="length" if prompt.plan.source in LENGTH_SOURCES else "budget")
        self._inquiry = Inquiry(asked.max_probe_tokens, prefix)
        exits = (self._button, self._share, self._inquiry)
        self._places = [
            Place(number, make(number, exits), home, self._moved) for number in range(asked.n)
        ]
        self._living: asyncio.TaskGroup | None = None
        self._answers: Sequence[Answer] = ()
        self._chosen = 0
        self.outcome = Outcome()

    # -- what a completion asks of a choice --------------------------------------------------

    @property
    def spent_tokens(self) -> int:
        spent = total(self._places)
        return sum(spent[part] for part in PARTS)

    @property
    def thinking_tokens(self) -> int:
        return total(self._places)["thinking_tokens"]

    @property
    def thinking_ids(self) -> Sequence[int]:
        return self._places[self._chosen].thought.thinking_ids

    def finish(self) -> bool:
        """Close all thoughts now; False where every answer is being written."""
        if not self._button.asked and self.thinking:
            self._button.asked = True
            for place in self._places:
                place.driver.wake()
        return self._button.asked

    async def live(self) -> NoAnswerProduced | None:
        """Think, answer, choose; returns why there is no answer if no thought has one."""
        try:
            for place in self._places:
                place.driver.start()
            await self._think()
            await self._live(math.inf)
            self._answers = [self._answer(place) for place in self._places]
            if not all(answer.failed for answer in self._answers):
                self._chosen = await self._strategy.choose(self._answers, self._score)
        finally:
            for place in self._places:
                await place.driver.close()
        chosen = self._places[self._chosen]
        self.outcome = self._summed(chosen.outcome)
        if chosen.outcome.failure is None:
            for event in chosen.events:
                self._emit(event)
        return chosen.outcome.failure

    def report(self) -> StrategyReport:
        """The strategy's report, once it is over."""
        return StrategyReport(
            method=self._asked.method,
            n=len(self._places),
            token_budget=self._budget,
            chosen=self._chosen,
            copies=sum(place.copied for place in self._places),
            answers=[
                _row(answer, place.outcome, place.spent())
                for answer, place in zip(self._answers, self._places, strict=True)
            ],
        )

    # -- what a strategy asks of a meeting ---------------------------------------------------

    @property
    def thinking(self) -> Sequence[int]:
        return [place.number for place in self._places if place.thinks]

    @property
    def answers(self) -> Sequence[Answer]:
        return [self._answer(place) for place in self._places if not place.thinks]

    async def probe(self) -> Sequence[Answer]:
        waiting = [self._places[number] for number in self.thinking]
        self._inquiry.asked = True
        for place in waiting:
            place.probed = None
            place.driver.wake()
        self._inquiry.asked = False
        await asyncio.gather(*(place.driver.probed() for place in waiting))
        return [self._probed(place) for place in waiting]

    async def copy(self, source: int, target: int) -> None:
        """Does nothing if one of the two was closed meanwhile, or if the source is unsettled: it
        has a token whose meaning depends on later ones.
        """
        here, there = self._places[source], self._places[target]
        if here.thinks and there.thinks and here.thought.settled:
            await there.become(here)

    # -- the budget --------------------------------------------------------------------------

    async def _think(self) -> None:
        """Let all think on to equal lengths, as long as there is a token for each."""
        while thinking := self.thinking:
            each = (self._budget - self.thinking_tokens) // len(thinking)
            if each < 1:
                return
            self._share.tokens += int(min(each, self._strategy.interval))
            await self._live(self._share.tokens)
            if each > self._strategy.interval:
                await self._strategy.meet(self, self._score)

    async def _live(self, most: float) -> None:
        """Run all to their ends, or to `most` tokens of thought. Raises the engine's failure."""
        try:
            async with asyncio.TaskGroup() as group:
                for place in self._places:
                    group.create_task(place.driver.live(most))
                    await asyncio.sleep(0)  # starting all at once would hold the loop
                self._living = group
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        finally:
            self._living = None

    def _moved(self, place: Place) -> None:
        """Run a thought on that was closed while it waited: its answer waits for no other."""
        if self._living is not None:
            self._living.create_task(place.driver.live())

    # -- the answers -------------------------------------------------------------------------

    def _answer(self, place: Place) -> Answer:
        outcome = place.outcome
        return self._said(place.text, outcome.finish_reason == "stop", outcome.failure is not None)

    def _probed(self, place: Place) -> Answer:
        """A probe's answer; a failed one where the engine failed it or it had no room."""
        if place.probed is None:
            return Answer("", "", failed=True)
        return self._said(f"{self._prefix}{place.probed.text}", place.probed.whole)

    def _said(self, text: str, whole: bool, failed: bool = False) -> Answer:
        return Answer(text, self._normalise(Found(0, text, whole)), failed)

    def _summed(self, chosen: Outcome) -> Outcome:
        """The outcome of the chosen thought, with the tokens of all, ended now."""
        now, firsts = perf_counter(), [place.outcome.first_token_at for place in self._places]
        counts: dict[str, Any] = dict(total(self._places))
        return replace(
            chosen,
            **counts,
            cached_tokens=min(place.outcome.cached_tokens for place in self._places),
            first_token_at=min((at for at in firsts if at is not None), default=None),
            first_answer_at=None if chosen.first_answer_at is None else now,
            ended_at=None if chosen.ended_at is None else now,
        )


def _row(answer: Answer, outcome: Outcome, spent: Counter[str]) -> StrategyAnswer:
    return StrategyAnswer(
        answer=answer.text,
        votes=answer.votes,
        score=answer.score,
        end_cause=outcome.end_cause,
        error=error_code(outcome.failure) if outcome.failure else None,
        **{part: spent[part] for part in PARTS},
    )
