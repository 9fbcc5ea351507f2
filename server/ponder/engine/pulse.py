"""Measures how long an engine has given no token."""

from __future__ import annotations

from time import monotonic


class Pulse:
    """Remembers when an engine last gave a token, or got its first request after it was idle.

    Call `begin` and `end` around each request, and `beat` for each of its chunks.
    """

    def __init__(self) -> None:
        self._requests = 0
        self._heard = 0.0

    def begin(self) -> None:
        if not self._requests:
            self.beat()
        self._requests += 1

    def end(self) -> None:
        self._requests -= 1

    def beat(self) -> None:
        self._heard = monotonic()

    def silence(self) -> float:
        """Seconds without a token, while requests run; 0 while none does."""
        return monotonic() - self._heard if self._requests else 0.0
