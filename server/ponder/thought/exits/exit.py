"""The seam of whatever closes a thought for the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from ponder.thought.exits.causes import Cause


@dataclass(slots=True)
class Progress:
    """An open thought as its exits see it; it changes in place.

    `thinking` are the confirmed token ids; `coming` tokens would follow them now. `clean`: a line
    or a sentence ends between the two. `overhead` tokens were sampled before the thought: blanks,
    and the start marker of a thought that the model opens. `now` is in seconds of the driver's
    clock.
    """

    thinking: list[int] = field(default_factory=list)
    coming: int = 0
    clean: bool = False
    overhead: int = 0
    now: float = 0.0


@dataclass(slots=True)
class GoOn:
    """Think on, and ask again: before the thought has more than `tokens`, or at `time`.

    Past `clean` tokens, also where a line or a sentence ends. `time` is later than now. An exit
    that says none of the three is asked when somebody outside wakes the thought.
    """

    tokens: float = math.inf
    clean: float = math.inf
    time: float = math.inf


@dataclass(slots=True)
class Close:
    """Close the thought in front of the tokens that come."""

    cause: Cause


class Exit(Protocol):
    """A rule by which a thought is closed for the model.

    `look` is asked once the thought is open, and then as it says itself. What it answers depends
    on `at` and on what the exit was shown before, so that the size of an engine's chunks changes
    no cut. State of its own is copied where a thought forks. The end marker is no token of the
    thought: a model that ends its thought where an exit would close it has ended it by itself.

        >>> class After:
        ...     def __init__(self, seconds):
        ...         self.seconds, self.end = seconds, None
        ...     def look(self, at):
        ...         self.end = self.end or at.now + self.seconds
        ...         return Close("budget") if at.now >= self.end else GoOn(time=self.end)
        >>> exit = After(2.0)
        >>> exit.look(Progress(now=10.0))
        GoOn(tokens=inf, clean=inf, time=12.0)
        >>> exit.look(Progress(now=12.0))
        Close(cause='budget')
    """

    def look(self, at: Progress) -> GoOn | Close: ...
