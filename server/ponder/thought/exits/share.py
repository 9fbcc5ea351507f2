"""Closes a thought that has spent its share of a budget common to several thoughts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ponder.thought.exits.causes import Cause
from ponder.thought.exits.exit import Close, GoOn, Progress


@dataclass(slots=True)
class Share:
    """At most `tokens` for each of the thoughts; they and their forks share this one exit.

    The caller that divides the budget raises `tokens` while they think.

        >>> share = Share(2)
        >>> share.look(Progress(thinking=[1, 2]))
        GoOn(tokens=2, clean=inf, time=inf)
        >>> share.look(Progress(thinking=[1, 2], coming=1))
        Close(cause='budget')
    """

    tokens: int = 0
    cause: Cause = "budget"

    def look(self, at: Progress) -> GoOn | Close:
        if len(at.thinking) + at.coming > self.tokens:
            return Close(self.cause)
        return GoOn(tokens=self.tokens)

    def __deepcopy__(self, _memo: object) -> Self:
        return self
