"""The seam of a strategy, and what it may do with its thoughts."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Protocol

from ponder.protocol.fields import StrategyAsk

Score = Callable[[str], Awaitable[float | None]]
"""Scores one answer by the operator's verifier, from 0 to 1; None without a score."""


@dataclass(slots=True)
class Answer:
    """One thought's answer: its `text`, and what the text `says` in the form that is compared.

    `failed` marks a thought without an answer. `votes` counts the answers that say the same,
    including this one; an answer that says nothing has none. `score` is the verifier's.
    """

    text: str
    says: str
    failed: bool = False
    votes: int = 0
    score: float | None = None


class Meeting(Protocol):
    """The thoughts of a request while all that still think wait for each other."""

    @property
    def thinking(self) -> Sequence[int]:
        """The places of the thoughts that wait."""
        ...

    @property
    def answers(self) -> Sequence[Answer]:
        """The answers of the other thoughts, which have ended."""
        ...

    @property
    def random(self) -> Random:
        """A generator that the request seeds."""
        ...

    async def probe(self) -> Sequence[Answer]:
        """What each waiting thought would answer, in the order of `thinking`."""
        ...

    async def copy(self, source: int, target: int) -> None:
        """Replace the thought in place `target` by a copy of the one in place `source`."""
        ...


class Strategy(Protocol):
    """How n thoughts give one answer, as a request asked.

    All think `interval` tokens; then those that have not ended wait for each other and `meet`.
    After the last meeting each is closed, if it must be, and answers. `choose` returns the place of
    the answer to give; at least one answer has not failed. `score` is None where the operator names
    no verifier.

        >>> class First(Parallel):
        ...     async def choose(self, answers, score):
        ...         return next(n for n, answer in enumerate(answers) if not answer.failed)
        >>> import asyncio
        >>> first = First(StrategyAsk(method="self_consistency", n=2))
        >>> asyncio.run(first.choose([Answer("", "", failed=True), Answer("42.", "42")], None))
        1
    """

    interval: float
    needs_verifier: ClassVar[bool]

    def __init__(self, asked: StrategyAsk) -> None: ...
    async def meet(self, meeting: Meeting, score: Score | None) -> None: ...
    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int: ...


class Parallel:
    """Thoughts that know nothing of each other."""

    needs_verifier: ClassVar[bool] = False

    def __init__(self, asked: StrategyAsk) -> None:
        self.interval: float = math.inf

    async def meet(self, meeting: Meeting, score: Score | None) -> None:
        """Does nothing."""


def vote(answers: Sequence[Answer]) -> None:
    """Count the votes of answers that say something."""
    said = [answer.says for answer in answers if not answer.failed]
    for answer in answers:
        answer.votes = said.count(answer.says) if answer.says and not answer.failed else 0


def best(answers: Sequence[Answer]) -> int:
    """The place of the highest score; among equals of the most votes, then the first."""

    def rank(place: int) -> tuple[bool, float, int, int]:
        answer = answers[place]
        score = -1.0 if answer.score is None else answer.score
        return (not answer.failed, score, answer.votes, -place)

    return max(range(len(answers)), key=rank)
