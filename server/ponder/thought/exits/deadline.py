"""Closes a thought while there is still time for its answer.

The rule need not predict when a thought ends, only how long its answer takes: it closes the thought
when that estimate, by the pace of the engine and with its safety, is all the time left.
`tests.bench.deadline` compares the rule with one that uses means, and with a plain cap.
"""

from __future__ import annotations

from dataclasses import dataclass

from ponder.thought.budget import Plan
from ponder.thought.exits.exit import Close, GoOn, Progress
from ponder.thought.pace import Pace

_TICK = 0.002  # seconds: an exit that is due sooner is due now


@dataclass(frozen=True, slots=True)
class Deadline:
    """Closes a thought whose answer of `tokens` is due at `at`.

    After the close, the answer is a new request, which waits for its first token; it does not
    sample the close text. The deadline overrides a plan's grace and least thought. The
    engine may slow down, so that the exit looks again after half of the time left; it does no work
    per token.

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
        begun = bool(at.thinking or at.coming or at.overhead)
        slack = self.at - at.now - self.pace.safety * self.needed(at.now, begun=begun)
        if slack < _TICK:
            return Close("deadline")
        return GoOn(time=at.now + max(slack / 2, _TICK))

    def needed(self, now: float, *, begun: bool = False) -> float:
        """The expected seconds from the close to the end of the answer.

        Where the thought has `begun`, the engine has read its prompt.
        """
        return self.pace.seconds(self.tokens, now, continues=begun)

    def room(self, now: float) -> int | None:
        """Tokens of thought that the time leaves; None where the pace is not known."""
        answer = self.pace.safety * self.needed(now, begun=True)
        return self.pace.tokens(self.at - now - answer, now)


@dataclass(frozen=True, slots=True)
class Due:
    """When the answers of a request are due, on an engine of this `pace`, as seen at `now`.

    `answer` is how many tokens the client reserves for each answer, if it says. Otherwise the
    expected length is the 90th percentile of recent answers, at most the plan's reserve.
    """

    at: float
    now: float
    pace: Pace
    answer: int | None = None

    def exit(self, plan: Plan) -> Deadline:
        expected = min(plan.reserve, self.pace.answer or plan.reserve)
        tokens = self.answer or expected
        return Deadline(self.at, min(tokens, plan.max_answer or tokens), self.pace)
