"""The seam of a strategy, and what it may do with the thoughts that it is given."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Protocol

Score = Callable[[str], Awaitable[float | None]]
"""The operator's verifier on one answer: from 0 to 1, None where it gives no score."""


@dataclass(slots=True)
class Answer:
    """What one thought came to: its text, and what that says, as answers are compared.

    `failed` is a thought without an answer. `votes` counts the answers that say the same, itself
    among them; none for one that says nothing. `score` is the verifier's.
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
        """The places of those that wait."""
        ...

    @property
    def answers(self) -> Sequence[Answer]:
        """Of the others."""
        ...

    @property
    def random(self) -> Random:
        """Seeded by the request."""
        ...

    async def probe(self) -> Sequence[Answer]:
        """What each of those that wait would answer, in the order of `thinking`."""
        ...

    async def copy(self, source: int, target: int) -> None:
        """Have the thought in place `source` live in place `target` as well, instead of its own."""
        ...


class Strategy(Protocol):
    """How n thoughts give one answer.

    All think `interval` tokens, then those that have not ended wait for each other and `meet`;
    after the last meeting each is closed, if it must be, and answered. `choose` returns the place
    of the answer that is given; at least one has not failed. `score` is None where the operator
    names no verifier.

        >>> class First:
        ...     interval, needs_verifier = math.inf, False
        ...     async def meet(self, meeting, score): ...
        ...     async def choose(self, answers, score):
        ...         return next(n for n, answer in enumerate(answers) if not answer.failed)
        >>> import asyncio
        >>> asyncio.run(First().choose([Answer("", "", failed=True), Answer("42.", "42")], None))
        1
    """

    interval: float
    needs_verifier: ClassVar[bool]

    async def meet(self, meeting: Meeting, score: Score | None) -> None: ...
    async def choose(self, answers: Sequence[Answer], score: Score | None) -> int: ...


class Parallel:
    """Thoughts that know nothing of each other."""

    interval: float = math.inf
    needs_verifier: ClassVar[bool] = False

    async def meet(self, meeting: Meeting, score: Score | None) -> None:
        """Nothing is said."""


def vote(answers: Sequence[Answer]) -> None:
    """Count the votes of answers that say something."""
    said = [answer.says for answer in answers if not answer.failed]
    for answer in answers:
        answer.votes = said.count(answer.says) if answer.says and not answer.failed else 0


def best(answers: Sequence[Answer]) -> int:
    """The place of the highest score, of these of the most votes, of these the first."""

    def rank(place: int) -> tuple[bool, float, int, int]:
        answer = answers[place]
        score = -1.0 if answer.score is None else answer.score
        return (not answer.failed, score, answer.votes, -place)

    return max(range(len(answers)), key=rank)
