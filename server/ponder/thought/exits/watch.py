"""Asks the exits of a thought, each when it wants to look."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ponder.thought.exits.causes import Cause
from ponder.thought.exits.exit import Close, Exit, Found, GoOn, Probe, Progress

_IDLE = GoOn()


class Watch:
    """The exits of one thought. Where several would close it at once, the first gives the cause.

    `tokens`, `clean` and `time` are the earliest that an exit waits for (see `GoOn`). Up to `quiet`
    tokens, no exit waits for the thought's length. `wanted` are the probes not yet made, each as
    (index of the exit, probe, tokens of thought when the exit asked).
    """

    def __init__(self, exits: Sequence[Exit]) -> None:
        self._exits = exits
        self.wanted: list[tuple[int, Probe, int]] = []
        self.renew()

    def renew(self) -> None:
        """Have every exit asked again, as at the beginning."""
        self.wanted.clear()
        self._until = [GoOn(tokens=-1, time=-math.inf)] * len(self._exits)
        self._note()

    def ask(self, at: Progress, *, woken: bool = False) -> Cause | None:
        """Ask the exits that want to look before the coming tokens. Returns the cause of a close.

        `woken` also asks the exits whose time has come and those that wait only for a wake.
        """
        size = len(at.thinking)
        for number, until in enumerate(self._until):
            due = size + at.coming > until.tokens or (at.clean and size > until.clean)
            if due or (woken and (until.time <= at.now or until == _IDLE)):
                cause = self._look(number, at)
                if cause is not None:
                    return cause
        self._note()
        return None

    def hear(self, number: int, found: Found, at: Progress) -> Cause | None:
        """Tell exit `number` its probe's result. Returns the cause if that closes the thought."""
        at.found = found
        cause = self._look(number, at)
        at.found = None
        self._note()
        return cause

    def _look(self, number: int, at: Progress) -> Cause | None:
        act = self._exits[number].look(at)
        if isinstance(act, Close):
            return act.cause
        if isinstance(act, Probe):
            self.wanted.append((number, act, len(at.thinking)))
            act = act.then
        self._until[number] = act
        return None

    def _note(self) -> None:
        tokens = clean = time = math.inf
        for until in self._until:
            tokens = min(tokens, until.tokens)
            clean = min(clean, until.clean)
            time = min(time, until.time)
        self.tokens, self.clean, self.time = tokens, clean, time
        self.quiet = min(tokens, clean)
