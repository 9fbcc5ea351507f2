"""The seam between running a request and its observers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.registry import Collector

from ponder.server.completion import Completion
from ponder.thought.thought import Event


@dataclass(frozen=True, slots=True)
class Watch:
    """An observer's callbacks for one request; they run on the event loop and must not wait.

    `ended` is called once, however the request ends: with its error, with `asyncio.CancelledError`
    where its client left, or with None where it was answered. `heard` gets a choice's index and
    event, for each event as it comes.
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
    """The observer's own metrics, which `/metrics` shows beside the others."""

    @abstractmethod
    def began(self, completion: Completion) -> Watch:
        """Called when a request begins; returns its callbacks."""

    async def settled(self) -> None:  # noqa: B027 - most have nothing left to do
        """Wait until the work for requests that have ended is done."""

    def cut(self) -> str:
        """Abandon the work that is left; returns a description for the log, or nothing."""
        return ""
