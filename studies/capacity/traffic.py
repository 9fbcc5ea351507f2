"""Random requests: they come in bursts, and their thoughts' lengths have a heavy tail."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, at `at` seconds: tokens of its prompt, of its thought when uncut and of its
    answer. `budget` is the client's.
    """

    at: float
    prompt: int
    thought: int
    answer: int
    budget: float = math.inf
    tenant: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """A Poisson process of `rate` requests a second.

    For `burst_s` seconds of every `every_s` the rate is `burst` times as high, and between bursts
    so much lower that the mean remains `rate`. Lengths of thoughts are lognormal: `thought` is
    their median, `sigma` the deviation of the logarithm (1: the mean is 1.65 medians, one in a
    hundred is ten medians). One request in `greedy` is tenant 0's, the others are spread over
    `tenants`.
    """

    rate: float
    seconds: float
    prompt: int = 300
    thought: int = 1200
    sigma: float = 1.0
    answer: int = 300
    longest: int = 16_000
    budget: float = math.inf
    burst: float = 1.0
    burst_s: float = 10.0
    every_s: float = 60.0
    tenants: int = 1
    greedy: float = 0.0
    seed: int = 0

    def requests(self) -> Iterator[Asked]:
        dice, at = random.Random(self.seed), 0.0
        share = self.burst_s / self.every_s
        calm = (1 - share * self.burst) / (1 - share)
        while True:
            bursts = at % self.every_s >= self.every_s - self.burst_s
            at += dice.expovariate(self.rate * (self.burst if bursts else calm))
            if at >= self.seconds:
                return
            length = self.thought * math.exp(dice.gauss(0, self.sigma))
            greedy = dice.random() < self.greedy
            yield Asked(
                at,
                max(8, round(dice.expovariate(1 / self.prompt))),
                max(1, min(self.longest, round(length))),
                max(4, round(dice.expovariate(1 / self.answer))),
                self.budget,
                0 if greedy else dice.randrange(self.tenants),
            )
