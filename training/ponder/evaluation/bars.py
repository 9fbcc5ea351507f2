"""Progress bars of a training and of an evaluation."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Never, Self

from tqdm import tqdm

# The bar has a fixed width: tqdm would give it the columns that the figures leave, here none.
_FORMAT = "{desc} {n_fmt}/{total_fmt} |{bar:12}| {elapsed}<{remaining}{postfix}"

# The estimate of the whole time is printed after this many answers and seconds.
_ANSWERS = 50
_SECONDS = 5.0


def step_bar(name: str, steps: int, done: int, shown: bool) -> tqdm[Never]:
    """A bar from `done` to `steps`; with some figures behind it, the line fits into 100 columns."""
    return tqdm(
        total=steps, initial=done, desc=name, unit="step", disable=not shown, bar_format=_FORMAT
    )


def duration(seconds: float) -> str:
    """A rounded duration for a person, in the most readable unit."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


class AnswerBar:
    """Counts answers and shows the time left; after the first ones prints an estimate of the whole.

    The clock starts at the first answer, so that the time of loading a model does not count.
    """

    def __init__(
        self, total: int, clock: Callable[[], float] = time.monotonic, *, command: str = "eval"
    ) -> None:
        self._total = total
        self._clock = clock
        self._command = command
        self._bar = tqdm(total=total, desc=command, unit="answer")
        self._done = 0
        self._began = 0.0
        self._told = False

    def advance(self, answers: int) -> None:
        if self._done == 0:
            self._began = self._clock()
            self._bar.unpause()
        self._done += answers
        self._bar.update(answers)
        elapsed = self._clock() - self._began
        if not self._told and self._done >= _ANSWERS and elapsed >= _SECONDS:
            self._told = True
            left = duration(elapsed * (self._total / self._done - 1))
            self._bar.write(
                f"ponder {self._command}: about {left} to go, by the first {self._done:,} answers",
                file=sys.stderr,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
