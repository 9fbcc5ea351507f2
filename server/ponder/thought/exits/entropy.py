"""Closes a thought once the entropy of its answer's first token has settled.

EAT (arXiv 2509.26522): a moving average follows the entropy of the first token after the answer
prefix, and the thought is closed once the moving variance is small. Without a prefix, that token
opens a phrase ("The answer is …") and says nothing of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ponder.thought.exits.exit import Act, Close, GoOn, Probe, Progress


@dataclass(slots=True, kw_only=True)
class Entropy:
    """Probes one token every `interval` tokens; closes when the variance falls below `delta`.

    Mean m and variance v of the entropy h move by `alpha`: v ← (1 - α)(v + α (h - m)²), then
    m ← m + α (h - m). m begins with the first h, v with 0; no thought is closed before `window`
    probes. `alternatives` is how many log probabilities the engine returns. See `Agreement` for the
    rest.
    """

    interval: int
    window: int
    alpha: float
    delta: float
    alternatives: int
    prefix: tuple[int, ...] | None = None
    after: int = 0
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0
    _next: int = 0

    def look(self, at: Progress) -> Act:
        if at.found is not None and at.found.logprobs:
            self._take(entropy(at.found.logprobs))
        if self.seen >= self.window and self.variance < self.delta:
            return Close("entropy")
        size, first = len(at.thinking), max(self.interval, self.after)
        if size < max(self._next, first):
            return GoOn(tokens=max(self._next, first))
        self._next = size + self.interval
        return Probe(1, GoOn(tokens=self._next), self.prefix, self.alternatives)

    def _take(self, found: float) -> None:
        off = found - self.mean if self.seen else 0.0
        self.seen += 1
        self.variance = (1 - self.alpha) * (self.variance + self.alpha * off * off)
        self.mean = self.mean + self.alpha * off if self.seen > 1 else found


def entropy(logprobs: Sequence[float]) -> float:
    """Entropy in nats of the given tokens; the remaining probability counts as one more token."""
    shares = [math.exp(logprob) for logprob in logprobs]
    rest = max(0.0, 1.0 - sum(shares))
    return -sum(share * math.log(share) for share in [*shares, rest] if share > 0)
