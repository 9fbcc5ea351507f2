"""Shrinks budgets, in steps up and down, while the engine has more to do than it can.

Shorter thoughts for everybody come before refusals for some. The level is a function of its own
past and of the load, so that a scripted clock tests it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from prometheus_client import Gauge

from ponder.engine.protocol import Demand
from ponder.thought.budget import Limits

logger = logging.getLogger(__name__)

SHARES = (1.0, 0.75, 0.5, 0.25)
"""The share of a budget that is left, by level."""
HIGH, LOW = 0.9, 0.7
RISES_S, FALLS_S = 2.0, 10.0


@dataclass(frozen=True, slots=True)
class Level:
    """How much is shed: `step` counts from 0, and points into `SHARES`.

    `step` rises by one for every 2 seconds in which the load is at least `HIGH`, falls by one for
    every 10 in which it is below `LOW`, and stays in between. `side` is 1 while the load is high
    and -1 while it is low, `since` when that began and `at` when it was measured, in seconds.

        >>> level = Level().after(1.0, now=0.0).after(1.0, now=2.0)
        >>> level.step, level.after(0.8, now=60.0).step, level.after(0.0, now=12.0).step
        (1, 1, 0)
    """

    step: int = 0
    side: int = 0
    since: float = 0.0
    at: float = 0.0

    def after(self, load: float, now: float) -> Level:
        """The level after this load; between two looks the lower of both loads counts."""
        side = (load >= HIGH) - (load < LOW)
        since = self.since if side == self.side else self.at if side < self.side else now
        step = self.step
        if side > 0 and now - since >= RISES_S:
            step, since = min(step + 1, len(SHARES) - 1), now
        elif side < 0:
            falls = int((now - since) // FALLS_S)
            step, since = max(0, step - falls), since + falls * FALLS_S
        return Level(step, side, since, now)


def load_of(taken: float, demand: Demand) -> float:
    """The largest of the shares that are in use; a queue as long as the batch counts as 1.

    `taken` is the share of the server's places that is in use.
    """
    return max(taken, demand.cache, demand.waiting / max(1, demand.running))


class Shedding:
    """The level of one server, updated whenever a request is planned or metrics are read.

    `load` returns the present load. With `asked`, budgets that requests ask for are shed as well,
    one step behind those that they leave open.
    """

    def __init__(
        self,
        load: Callable[[], float],
        *,
        asked: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._asked = asked
        self._clock = clock
        self._level = Level(at=clock())
        level = Gauge(
            "ponder_load_level",
            "Step of load shedding: 0 leaves budgets whole, 3 sheds most",
            registry=None,
        )
        level.set_function(lambda: self.look().step)
        ratio = Gauge(
            "ponder_load_ratio",
            "Load by which the server sheds budgets: 1 is as much as it can do",
            registry=None,
        )
        ratio.set_function(load)
        self.collectors = (level, ratio)

    def look(self) -> Level:
        """The level now."""
        before, load = self._level, self._load()
        self._level = level = before.after(load, self._clock())
        if level.step != before.step:
            kept = 100 * SHARES[level.step]
            logger.warning("the load is %.2f: budgets are shed to %g %%", load, kept)
        return level

    def shed(self, limits: Limits, level: Level) -> Limits:
        """The limits of a request that comes at this level."""
        asked = SHARES[max(0, level.step - 1)] if self._asked else 1.0
        return replace(limits, unasked_share=SHARES[level.step], asked_share=asked)
