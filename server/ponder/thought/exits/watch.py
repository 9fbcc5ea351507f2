"""Asks the exits of a thought, each when it wants to look."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ponder.thought.exits.causes import Cause
from ponder.thought.exits.exit import Close, Exit, GoOn, Progress

_IDLE = GoOn()


class Watch:
    """The exits of one thought. Where several close it at once, the first of them is the cause.

    `tokens`, `clean` and `time` are the earliest that an exit waits for (see `GoOn`); before the
    thought has more than `quiet` tokens, none wants to be asked for its length.
    """

    def __init__(self, exits: Sequence[Exit]) -> None:
        self._exits = exits
        self.renew()

    def renew(self) -> None:
        """Have every exit asked again, as at the beginning."""
        self._until = [GoOn(tokens=-1, time=-math.inf)] * len(self._exits)
        self._note()

    def ask(self, at: Progress, *, woken: bool = False) -> Cause | None:
        """Ask the exits that want to look before the tokens that come; why the thought closes.

        `woken` asks those, too, whose time it is, and those that wait for nothing but this.
        """
        size = len(at.thinking)
        for number, until in enumerate(self._until):
            due = size + at.coming > until.tokens or (at.clean and size > until.clean)
            if due or (woken and (until.time <= at.now or until == _IDLE)):
                act = self._exits[number].look(at)
                if isinstance(act, Close):
                    return act.cause
                self._until[number] = act
        self._note()
        return None

    def _note(self) -> None:
        tokens = clean = time = math.inf
        for until in self._until:
            tokens = min(tokens, until.tokens)
            clean = min(clean, until.clean)
            time = min(time, until.time)
        self.tokens, self.clean, self.time = tokens, clean, time
        self.quiet = min(tokens, clean)
