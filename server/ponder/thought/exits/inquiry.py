"""Probes thoughts when somebody asks what they would answer now; closes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ponder.thought.exits.exit import GoOn, Probe, Progress


@dataclass(slots=True)
class Inquiry:
    """While `asked`, a thought that is woken is probed for at most `max_tokens` of an answer.

    Several thoughts may share it, and forks do. `prefix` are the tokens before a probe's answer,
    None for the contract's answer prefix.

        >>> inquiry = Inquiry(max_tokens=8)
        >>> inquiry.look(Progress())
        GoOn(tokens=inf, clean=inf, time=inf)
        >>> inquiry.asked = True
        >>> inquiry.look(Progress()).max_tokens
        8
    """

    max_tokens: int
    prefix: tuple[int, ...] | None = None
    asked: bool = False

    def look(self, at: Progress) -> GoOn | Probe:
        if self.asked and at.found is None:
            return Probe(self.max_tokens, GoOn(), self.prefix)
        return GoOn()

    def __deepcopy__(self, _memo: object) -> Self:
        return self
