"""Checks of the simulation against measurements to which nothing was fitted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .fleet import Fleet, Policy, Reply
from .profiles import BENCHMARK, H100_7B, h100, measured, predicted
from .traffic import Asked

ANSWER = 64
PROMPT = 16
"""Tokens of the benchmark's answers and prompts."""
SECONDS = 200.0


@dataclass(frozen=True, slots=True)
class Check:
    """A figure of a real engine to which no profile was fitted, in tokens per second."""

    what: str
    measured: float
    simulated: float

    @property
    def error(self) -> float:
        """The simulated figure's error, as a share of the measured figure."""
        return self.simulated / self.measured - 1


def checks(path: Path = BENCHMARK) -> list[Check]:
    """Budgets at 32 streams on this repository's engine, and the fourth published row."""
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    rate: Mapping[str, float] = {
        one["figure"]: one["ponder"] for one in figures if one["unit"] == "tokens/s"
    }
    made = [
        Check(point, rate[point], closed_loop(clients=32, budget=budget))
        for budget in (64, 512)
        if (point := f"budget-{budget}-whole-c32") in rate
    ]
    fourth = H100_7B[3]
    name = f"H100, {fourth.rows} requests of {fourth.prompt} + {fourth.output} tokens"
    return [*made, Check(name, fourth.tokens_per_second, predicted(h100(), fourth))]


def closed_loop(*, clients: int, budget: int) -> float:
    """Tokens per second of clients that ask again after each answer, as in `make bench`.

    Thoughts never end by themselves; an answer follows the cut in a request of its own.
    """

    def asked(at: float) -> Asked:
        return Asked(at, PROMPT, 1 << 30, ANSWER, budget)

    def again(reply: Reply) -> Asked | None:
        at = reply.ended_at or 0.0
        return asked(at) if at < SECONDS else None

    fleet = Fleet(measured(), 1, Policy("budget"))
    begun = [asked(number * 0.003) for number in range(clients)]
    outcome = fleet.run(begun, after=again)
    whole = [one for one in outcome.answered() if one.ended_at and one.ended_at <= SECONDS]
    return len(whole) * (budget + ANSWER) / SECONDS
