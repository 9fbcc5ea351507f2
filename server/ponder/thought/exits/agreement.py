"""Closes a thought whose probes agree on the answer.

In the manner of Dynasor-CoT (arXiv 2412.20993), but beside the running thought: if the thought
stopped for its probes, the engine would have to admit it again after each. An answer that stays the
same may still be one that the thought would have corrected.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ponder.thought.exits.answers import Normalise, agreeing, exact
from ponder.thought.exits.exit import Act, Close, GoOn, Probe, Progress


@dataclass(slots=True, kw_only=True)
class Agreement:
    """Probes every `interval` tokens; closes when the last `window` answers are equal.

    No probe is made before the thought has `after` tokens. `prefix` are the tokens before a probe's
    answer, None for the contract's answer prefix.

        >>> from ponder.thought.exits.exit import Found
        >>> exit = Agreement(interval=2, window=2, max_tokens=8)
        >>> exit.look(Progress(thinking=[1, 2])).then
        GoOn(tokens=4, clean=inf, time=inf)
        >>> exit.look(Progress(thinking=[1, 2, 3], found=Found(2, " 42.")))
        GoOn(tokens=4, clean=inf, time=inf)
        >>> exit.look(Progress(thinking=[1, 2, 3, 4, 5], found=Found(4, " 42")))
        Close(cause='agreement')
    """

    interval: int
    window: int
    max_tokens: int
    normalise: Normalise = exact
    prefix: tuple[int, ...] | None = None
    after: int = 0
    answers: list[str] = field(default_factory=list)
    _next: int = 0

    def look(self, at: Progress) -> Act:
        if at.found is not None:
            self.answers.append(self.normalise(at.found))
        if agreeing(self.answers) >= self.window:
            return Close("agreement")
        size, first = len(at.thinking), max(self.interval, self.after)
        if size < max(self._next, first):
            return GoOn(tokens=max(self._next, first))
        self._next = size + self.interval
        return Probe(self.max_tokens, GoOn(tokens=self._next), self.prefix)
