"""The interface of the rules that close a thought for the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from ponder.thought.exits.causes import Cause


@dataclass(frozen=True, slots=True)
class Found:
    """What a probe answered, after the first `tokens` of the thought.

    An answer that is not `whole` was truncated. `logprobs` are those of its likeliest first tokens,
    where the probe asked for them.
    """

    tokens: int
    text: str
    whole: bool = True
    logprobs: tuple[float, ...] = ()


@dataclass(slots=True)
class Progress:
    """An open thought as its exits see it; it changes in place.

    `thinking` are the confirmed token ids; `coming` tokens would follow them now. `clean` is True
    where a line or a sentence ends between the two. `overhead` tokens were sampled before the
    thought: blanks, and the start marker of a thought that the model opens. `now` is in seconds of
    the driver's clock. `found` is set while an exit is asked because its probe has answered.
    """

    thinking: list[int] = field(default_factory=list)
    coming: int = 0
    clean: bool = False
    overhead: int = 0
    now: float = 0.0
    found: Found | None = None


@dataclass(slots=True)
class GoOn:
    """Think on, and ask again before the thought has more than `tokens`, or at `time`.

    Past `clean` tokens, ask also where a line or a sentence ends. `time` is later than now. An exit
    that sets none of the three is asked when something wakes the thought.
    """

    tokens: float = math.inf
    clean: float = math.inf
    time: float = math.inf


@dataclass(slots=True)
class Close:
    """Close the thought before the coming tokens."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Probe:
    """Think on, as `then` says, and sample meanwhile what the thought would answer now.

    The probe closes the thought so far and greedily samples at most `max_tokens` of an answer,
    after `prefix` or, if that is None, after the contract's answer prefix. `logprobs` is how many
    log probabilities of the first token to return. The exit is asked again with the result. It has
    one probe at a time: while one runs, another is skipped.
    """

    max_tokens: int
    then: GoOn
    prefix: tuple[int, ...] | None = None
    logprobs: int | None = None


Act = GoOn | Close | Probe


class Exit(Protocol):
    """A rule that closes a thought for the model.

    `look` is called once the thought is open, and then whenever its last result asks for it. The
    result must depend only on `at` and on what the exit saw before, so that the size of an engine's
    chunks changes no cut; only the moment at which a probe answers depends on the engine. A fork of
    the thought copies the exit's state. The end marker is no token of the thought: where the model
    ends a thought just as an exit would close it, the thought has ended by itself.

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
