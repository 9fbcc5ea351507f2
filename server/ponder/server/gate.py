"""The gate: how many requests are inside, for how long, and how the last ones leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter

from ponder.protocol.errors import NO_RETRY, ApiError, invalid_request


class Gate:
    """At most `most` places are taken at once, each for at most `seconds`.

    `reading` counts the requests that are being read, with one place each; `running` counts the
    choices that are being generated. `draining` is one-way: the gate admits no new request, and
    those inside go on.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.seconds = seconds
        self.reading = 0
        self.running = 0
        self.draining = False
        self.cut = False
        self._places: set[Place] = set()
        self._left = asyncio.Event()

    @property
    def places(self) -> int:
        """Requests inside, however many choices they have."""
        return len(self._places)

    @contextmanager
    def enter(self) -> Iterator[Place]:
        """Hold a place for a request that is about to be read. Raises 503 rather than queue."""
        if self.draining:
            raise draining("is shutting down")
        self._admit(1)
        place = Place(self)
        self._places.add(place)
        try:
            yield place
        finally:
            self.leave(place)

    def grow(self, place: Place, n: int, prompts: int = 1, field: str = "n") -> None:
        """Take a place for each choice of a request that is planned; `field` asked for `n` of them.

        Raises 400 and 503.
        """
        choices = n * prompts
        if choices > self.most:
            named = field if field == "n" else f"`{field}`.n"
            what = (
                f"{prompts} prompts of n = {n} are {choices}" if prompts > 1 else f"{named} is {n}"
            )
            raise invalid_request(
                f"{what}, but this server generates at most {self.most} choices at once "
                f"(--max-running): lower {named}{' or send fewer prompts' if prompts > 1 else ''}",
                field if n > self.most or prompts == 1 else "prompt",
            )
        self._admit(choices - 1)
        self.reading -= 1
        self.running += choices
        place.choices = choices

    def leave(self, place: Place) -> None:
        """Free the place, once; a second call does nothing."""
        if place not in self._places:
            return
        self._places.remove(place)
        self.running -= place.choices
        self.reading -= not place.choices
        place.on_leave()
        self._left.set()

    async def emptied(self) -> None:
        while self._places:
            self._left.clear()
            await self._left.wait()

    def shut(self) -> None:
        """End the time of every request inside."""
        self.cut = True
        for place in self._places:
            place.hurry()

    def _admit(self, more: int) -> None:
        if self.running + self.reading + more > self.most:
            raise ApiError(
                503,
                "overloaded",
                f"{self.running} choices are being generated and {self.reading} requests read, and "
                f"at most {self.most} may be (--max-running): try again in a moment",
                headers={"retry-after": "1"},
            )


class Place:
    """One request's place, from its body's first byte until its last choice has ended.

    The request took it at `arrived_at`, in seconds of `time.perf_counter`. `on_leave` is called
    once when it leaves, however it ended.
    """

    def __init__(self, gate: Gate) -> None:
        self.arrived_at = perf_counter()
        self.choices = 0
        self.on_leave: Callable[[], None] = lambda: None
        self._gate = gate
        self._ends_at = asyncio.get_running_loop().time() + gate.seconds
        self._clock: asyncio.Timeout | None = None
        gate.reading += 1

    def grow(self, n: int, prompts: int = 1, field: str = "n") -> None:
        self._gate.grow(self, n, prompts, field)

    def leave(self) -> None:
        self._gate.leave(self)

    def hurry(self) -> None:
        self._ends_at = 0.0
        if self._clock is not None and not self._clock.expired():
            self._clock.reschedule(0.0)

    @asynccontextmanager
    async def time(self) -> AsyncIterator[None]:
        """End the block with 504 when the time is up, with 503 when the gate is shut."""
        clock = self._clock = asyncio.timeout_at(self._ends_at)
        try:
            async with clock:
                yield
        except TimeoutError as error:
            if not clock.expired():
                raise
            if self._gate.cut:
                raise draining("was shut down before the answer was there") from error
            raise ApiError(
                504,
                "deadline_exceeded",
                f"the request took longer than {self._gate.seconds:g} seconds "
                f"(--request-timeout): ask for fewer tokens",
                headers=NO_RETRY,
            ) from error
        finally:
            self._clock = None


def draining(why: str) -> ApiError:
    return ApiError(
        503,
        "draining",
        f"this server {why}: send the request to another one",
        headers={"retry-after": "1"},
    )
