"""Has thoughts probed when somebody outside asks what they would answer, and closes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ponder.thought.exits.exit import GoOn, Probe, Progress


@dataclass(slots=True)
class Inquiry:
    """While `asked`, a thought that is woken is probed for at most `max_tokens` of an answer.

    It may be of several thoughts, and forks have it too. `prefix` are the tokens that an answer
    follows, None for the contract's.

        >>> inquiry = Inquiry(max_tokens=8)
        >>> inquiry.look(Progress())
        GoOn(tokens=inf, clean=inf, time=inf)
        >>> inquiry.asked = True
        >>> inquiry.look(Progress()).max_tokens
        8
    """

    max_tokens: int
    prefix: tuple[int, ...] | None = None
    asked: bool = False

    def look(self, at: Progress) -> GoOn | Probe:
        if self.asked and at.found is None:
            return Probe(self.max_tokens, GoOn(), self.prefix)
        return GoOn()

    def __deepcopy__(self, _memo: object) -> Self:
        return self
