"""Closes a thought while there is still time for its answer.

The end of a thought need not be foreseen, only how long an answer takes: the thought is closed when
that, by the pace of the engine, is half of the time that is left. `tests.bench.deadline` measures
the rule against means, and against a plain cap.
"""

from __future__ import annotations

from dataclasses import dataclass

from ponder.thought.budget import Plan
from ponder.thought.exits.exit import Close, GoOn, Progress
from ponder.thought.pace import Pace

SAFETY = 2.0
_TICK = 0.002  # seconds: what is due sooner is due


@dataclass(frozen=True, slots=True)
class Deadline:
    """Closes a thought whose answer of `tokens` is due at `at`.

    The closed thought is a new request, which waits for its first token as any other. The close
    text is no part of what it samples. Grace and the least thought of a plan do not hold against
    the clock. The engine may slow down, so that an exit that has time looks again after half of
    it; nothing is done at a token.

        >>> pace = Pace()
        >>> pace.first(0.5, now=0.0)
        >>> pace.later(1.0, 10, now=0.0)
        >>> exit = Deadline(at=10.0, tokens=15, pace=pace)
        >>> exit.look(Progress(now=2.0))
        GoOn(tokens=inf, clean=inf, time=4.0)
        >>> exit.look(Progress(now=6.0))
        Close(cause='deadline')
    """

    at: float
    tokens: int
    pace: Pace

    def look(self, at: Progress) -> GoOn | Close:
        slack = self.at - at.now - SAFETY * self.needed(at.now)
        if slack < _TICK:
            return Close("deadline")
        return GoOn(time=at.now + max(slack / 2, _TICK))

    def needed(self, now: float) -> float:
        """Seconds that an answer takes, from the close on."""
        return self.pace.seconds(self.tokens, now)

    def room(self, now: float) -> int | None:
        """Tokens of thought that the time leaves; None where the pace is not known."""
        return self.pace.tokens(self.at - now - SAFETY * self.needed(now), now)


@dataclass(frozen=True, slots=True)
class Due:
    """When the answers of a request are due, on an engine of this `pace`, as seen at `now`.

    `answer` is how many tokens the client keeps for each, where it says so. Else an answer is
    expected to take what nine in ten took lately, and no more than its plan keeps for it.
    """

    at: float
    now: float
    pace: Pace
    answer: int | None = None

    def exit(self, plan: Plan) -> Deadline:
        expected = min(plan.reserve, self.pace.answer or plan.reserve)
        tokens = self.answer or expected
        return Deadline(self.at, min(tokens, plan.max_answer or tokens), self.pace)
