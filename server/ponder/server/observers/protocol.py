"""The seam between running a request and whoever wants to know of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.registry import Collector

from ponder.server.completion import Completion
from ponder.thought.thought import Event


@dataclass(frozen=True, slots=True)
class Watch:
    """What an observer does for one request; all of it on the event loop, and without waiting.

    `ended` is called once, however the request ends: with what it failed on, with
    `asyncio.CancelledError` where its client left, and with None where it was answered. `heard`
    is given the events of each choice (its index first) as they come.
    """

    ended: Callable[[BaseException | None], None]
    heard: Callable[[int, Event], None] | None = None


class Observer(ABC):
    """Sees every request that is planned and has a place.

    >>> class Tally(Observer):
    ...     answered = 0
    ...
    ...     def began(self, completion):
    ...         return Watch(self.ended)
    ...
    ...     def ended(self, error):
    ...         self.answered += error is None
    >>> tally = Tally()
    >>> tally.began(completion=None).ended(None)
    >>> tally.answered
    1
    """

    collectors: tuple[Collector, ...] = ()
    """Metrics of its own, which `/metrics` shows beside the others."""

    @abstractmethod
    def began(self, completion: Completion) -> Watch:
        """The request begins; what to do for it."""

    async def settled(self) -> None:  # noqa: B027 - most have nothing left to do
        """Wait until nothing is left to do for requests that have ended."""

    def cut(self) -> str:
        """Leave what is left undone; returns what that is, for the log, or nothing."""
        return ""
