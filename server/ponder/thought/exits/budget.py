"""Closes a thought whose budget is spent."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.thought.budget import Plan
from ponder.thought.exits.exit import Close, GoOn, Progress

LENGTH_SOURCES = ("max_completion_tokens", "context")
"""Sources of budgets that are limits of length: a thought that they close ends by "length"."""


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `tokens` of thought; in the last `grace` of them, closes at a clean end.

    `room` bounds the thought and the tokens before it together. The cause is "length" where `room`
    closes the thought, or where a limit of length set `tokens` (`scarce`).
    """

    tokens: int
    grace: int = 0
    room: int | None = None
    scarce: bool = False

    @classmethod
    def of(cls, plan: Plan, room: int) -> Budget:
        return cls(plan.budget, plan.grace, room, scarce=plan.source in LENGTH_SOURCES)

    def look(self, at: Progress) -> GoOn | Close:
        left = self.tokens if self.room is None else max(0, self.room - at.overhead)
        limit = min(self.tokens, left)
        size, graceful = len(at.thinking), limit - self.grace
        if size + at.coming > limit or (at.clean and size > graceful):
            return Close("length" if self.scarce or left < self.tokens else "budget")
        return GoOn(tokens=limit, clean=graceful)
