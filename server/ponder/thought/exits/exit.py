"""The seam of whatever closes a thought for the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from ponder.thought.exits.causes import Cause


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe answered, after the first `tokens` of the thought.

    An answer that is not `whole` was cut. `logprobs` are those of the likeliest tokens that it
    might have begun with, where the probe wanted them.
    """

    tokens: int
    text: str
    whole: bool = True
    logprobs: tuple[float, ...] = ()


@dataclass(slots=True)
class Progress:
    """An open thought as its exits see it; it changes in place.

    `thinking` are the confirmed token ids; `coming` tokens would follow them now. `clean`: a line
    or a sentence ends between the two. `overhead` tokens were sampled before the thought: blanks,
    and the start marker of a thought that the model opens. `now` is in seconds of the driver's
    clock. `found` is there where an exit is asked because its probe has answered.
    """

    thinking: list[int] = field(default_factory=list)
    coming: int = 0
    clean: bool = False
    overhead: int = 0
    now: float = 0.0
    found: Found | None = None


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


@dataclass(frozen=True, slots=True)
class Probe:
    """Think on, as `then` says, and have the thought answered beside itself meanwhile.

    What the thought has come to is closed, and at most `max_tokens` of an answer are sampled
    greedily, after the answer prefix or after `prefix`; `logprobs` is how many log probabilities of
    its first token are wanted. The exit is asked again with what was found. It has one probe at a
    time: where the last one has not answered yet, this one is left out.
    """

    max_tokens: int
    then: GoOn
    prefix: tuple[int, ...] | None = None
    logprobs: int | None = None


Act = GoOn | Close | Probe


class Exit(Protocol):
    """A rule by which a thought is closed for the model.

    `look` is asked once the thought is open, and then as it says itself. What it answers depends
    on `at` and on what the exit was shown before, so that the size of an engine's chunks changes
    no cut; when a probe answers is the engine's to say. State of its own is copied where a thought
    forks. The end marker is no token of the thought: a model that ends its thought where an exit
    would close it has ended it by itself.

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

    def look(self, at: Progress) -> Act: ...
