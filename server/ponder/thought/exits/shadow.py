"""Records where an exit would have closed a thought, and lets it go on.

Only a thought that still runs to its end shows whether the exit would have been wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from ponder.thought.exits.causes import Cause
from ponder.thought.exits.exit import Act, Close, Exit, Found, GoOn, Probe, Progress


@dataclass(slots=True)
class Shadow:
    """Runs `exit` but closes nothing: where `exit` would, one probe samples the answer instead.

    After that, `exit` is not asked again. `cause` is why it would have closed the thought, after
    `tokens` of it. `answer` is the probe's result, None if the thought was over first.

        >>> from ponder.thought.exits.loop import Loop
        >>> shadow = Shadow(Loop(after=64), max_tokens=8)
        >>> shadow.look(Progress(thinking=[7] * 64)).max_tokens, shadow.cause, shadow.tokens
        (8, 'loop', 64)
        >>> shadow.look(Progress(thinking=[7] * 90, found=Found(64, "42")))
        GoOn(tokens=inf, clean=inf, time=inf)
        >>> shadow.answer.text
        '42'
    """

    exit: Exit
    max_tokens: int
    prefix: tuple[int, ...] | None = None
    cause: Cause | None = None
    tokens: int = 0
    answer: Found | None = None

    def look(self, at: Progress) -> Act:
        if self.cause is not None:
            self.answer = self.answer or at.found
            return GoOn()
        act = self.exit.look(at)
        if not isinstance(act, Close):
            return act
        self.cause, self.tokens = act.cause, len(at.thinking)
        return Probe(self.max_tokens, GoOn(), self.prefix)
