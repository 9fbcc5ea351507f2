"""The batches of a cold start, and the place in them that a checkpoint remembers."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from .examples import Example, ExampleWriter, batches


class Place(NamedTuple):
    """A position in a stream of batches, whose examples are written a pool at a time."""

    state: tuple[Any, ...]  # of the random generator, before the pool was written
    first: int  # batches of the pools before it
    taken: int  # batches taken from the pool so far


class BatchStream(Iterator[list[Example]]):
    """The endless `batches`, from the beginning or from the `place` of an earlier stream."""

    def __init__(
        self,
        writer: ExampleWriter,
        rng: Random,
        tokens_per_step: int,
        terse_steps: int,
        place: Place | None = None,
    ) -> None:
        self.place = place or Place(rng.getstate(), 0, 0)
        rng.setstate(self.place.state)
        self._rng = rng
        self._batches = batches(writer, rng, tokens_per_step, terse_steps - self.place.first)
        for _ in range(self.place.taken):
            next(self._batches)

    def __next__(self) -> list[Example]:
        before = self._rng.getstate()
        batch = next(self._batches)
        if self._rng.getstate() != before:  # a pool was written
            self.place = Place(before, self.place.first + self.place.taken, 0)
        self.place = self.place._replace(taken=self.place.taken + 1)
        return batch
