"""The simulated scenarios and their settings; each scenario returns rows of figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ponder.server.pools.protocol import PoolSize

from .fleet import Fleet, Outcome, Policy
from .profiles import Profile, h100
from .traffic import Traffic

WITHIN_S = 60.0
"""An answer that is complete within so many seconds counts as goodput."""
SEEDS = (0, 1, 2)
LOADS = (0.6, 0.8, 0.9, 1.0, 1.15, 1.3)
"""Arrival rates as shares of the engines' capacity; see `full_rate`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One point of a scenario: the figures of each seed."""

    arm: str
    x: float
    seeds: Sequence[Mapping[str, float]]

    def mean(self, figure: str) -> float:
        return fmean(one[figure] for one in self.seeds)

    def span(self, figure: str) -> tuple[float, float]:
        values = [one[figure] for one in self.seeds]
        return min(values), max(values)


def simulate(
    arm: str,
    x: float,
    traffic: Traffic,
    policy: Policy,
    *,
    engines: int,
    profile: Profile | None = None,
    deaths: Mapping[float, int] | None = None,
    seeds: Sequence[int] = SEEDS,
) -> Row:
    """Simulate one point for every seed; the first sixth of the time is the warm-up."""
    found = []
    for seed in seeds:
        fleet = Fleet(profile or h100(), engines, policy, seed=seed)
        coming = replace(traffic, seed=seed).requests()
        outcome: Outcome = fleet.run(
            coming, warm_up=traffic.seconds / 6, deaths=deaths, patience=2 * WITHIN_S
        )
        found.append(outcome.figures(WITHIN_S))
    return Row(arm, x, found)


def full_rate(traffic: Traffic, profile: Profile) -> float:
    """Requests a second that keep one engine's cache full: the unit of load."""
    rows, context = full_rows(traffic, profile)
    tokens = thought_moment(traffic, 1) + traffic.answer
    per_token = profile.step(int(rows), rows * context) / rows
    return 1 / (tokens * per_token + traffic.prompt * profile.prompt_s)


def full_rows(traffic: Traffic, profile: Profile) -> tuple[float, float]:
    """Rows that fill an engine's cache, and the mean tokens that each holds.

    At a random moment an engine more likely runs a long request than a short one: its rows hold
    E[t^2] / 2 E[t] tokens beside the prompt, where t is the tokens that a request samples.
    """
    first, second = (thought_moment(traffic, power) for power in (1, 2))
    tokens = first + traffic.answer
    squared = second + 2 * first * traffic.answer + 2 * traffic.answer**2
    context = traffic.prompt + squared / (2 * tokens)
    return min(profile.rows, profile.cache / context), context


def thought_moment(traffic: Traffic, power: int) -> float:
    """E[min(length, budget)^power], the lengths being lognormal."""
    most = min(traffic.budget, traffic.longest)
    mu, sigma = math.log(traffic.thought), traffic.sigma
    at = (math.log(most) - mu) / sigma
    below = math.exp(power * mu + (power * sigma) ** 2 / 2) * _normal(at - power * sigma)
    return float(below + most**power * (1 - _normal(at)))


def _normal(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


BASE = Traffic(rate=0.0, seconds=360.0)
ENGINES = 4
CAP = 4096
"""The budget of requests without one, where a scenario has it."""
CAPPED = replace(BASE, budget=CAP)


def sizing() -> list[Row]:
    """Time to an answer by budget, against the rate of requests per engine, for 4 engines."""
    return [
        simulate(
            f"budget {budget:,}" if budget < math.inf else "no budget",
            rate,
            replace(BASE, rate=rate * ENGINES, budget=budget),
            Policy("budget"),
            engines=ENGINES,
        )
        for budget in (math.inf, 4096, 2048, 1024)
        for rate in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    ]


def pooling() -> list[Row]:
    """Fleets of different sizes under the same load per engine."""
    return [
        simulate(f"load {load:g}", engines, _at(load, engines, CAPPED), Policy("plain"),
                 engines=engines)
        for load in (0.8, 0.95)
        for engines in (1, 2, 4, 8, 16)
    ]  # fmt: skip


def affinity() -> list[Row]:
    """Re-entries after a cut, sent to the engine that has their prefix, or to any."""
    traffic = replace(BASE, budget=1024)
    return [
        simulate(
            arm, load, _at(load, ENGINES, traffic), Policy(arm, affinity=stays), engines=ENGINES
        )
        for arm, stays in (("session affinity", True), ("none", False))
        for load in LOADS
    ]


def overload() -> list[Row]:
    """Bursts of three times the mean rate, under several policies of a full server."""
    places = _places(CAPPED)
    arms = (
        Policy("nothing", unasked=CAP),
        Policy("503 when full", unasked=CAP, places=places),
        Policy("shed budgets", unasked=CAP, shed=True),
        Policy("shed, then 503", unasked=CAP, shed=True, places=places),
    )
    traffic = replace(BASE, burst=3.0)
    return _by_load(arms, traffic)


def tenants() -> list[Row]:
    """One of 20 tenants sends half of all requests: refusals for all, or a pool for each."""
    rate = ENGINES * full_rate(CAPPED, h100())
    size = PoolSize(int(600 * rate * thought_moment(CAPPED, 1) / 20), 600)
    arms = (
        Policy("nothing", unasked=CAP),
        Policy("503 when full", unasked=CAP, places=_places(CAPPED)),
        Policy("pools that shrink", unasked=CAP, pool=size),
    )
    return _by_load(arms, replace(BASE, tenants=20, greedy=0.5))


def deadlines() -> list[Row]:
    """A deadline of 30 seconds, against plain budgets."""
    arms = (
        Policy(f"budget {CAP:,}", unasked=CAP),
        Policy("budget 2,048", unasked=2048),
        Policy("deadline 30 s", deadline_s=30.0, unasked=CAP),
    )
    return _by_load(arms, replace(BASE, burst=3.0))


def _by_load(arms: Sequence[Policy], traffic: Traffic) -> list[Row]:
    unit = ENGINES * full_rate(CAPPED, h100())
    return [
        simulate(policy.name, load, replace(traffic, rate=load * unit), policy, engines=ENGINES)
        for policy in arms
        for load in LOADS
    ]


def failures() -> list[Row]:
    """One of 4 engines dies for good in the middle."""
    traffic = replace(BASE, budget=2048)
    return [
        simulate(arm, load, _at(load, ENGINES, traffic), Policy(arm, resume=resume),
                 engines=ENGINES, deaths={BASE.seconds / 2: 0})
        for arm, resume in (("entered again", True), ("failed", False))
        for load in (0.4, 0.6, 0.8, 0.9)
    ]  # fmt: skip


def large(engines: int = 1024) -> list[Row]:
    """Budgets of 4,096 at a load of 0.95, for four minutes."""
    traffic = replace(BASE, seconds=240.0, budget=4096)
    return [
        simulate(arm, engines, _at(0.95, engines, traffic), Policy(arm, affinity=stays),
                 engines=engines, seeds=SEEDS[:1])
        for arm, stays in (("session affinity", True), ("none", False))
    ]  # fmt: skip


SCENARIOS: Mapping[str, Callable[[], list[Row]]] = {
    "sizing": sizing,
    "pooling": pooling,
    "affinity": affinity,
    "overload": overload,
    "tenants": tenants,
    "deadlines": deadlines,
    "failures": failures,
    "large": large,
}


def _at(load: float, engines: int, traffic: Traffic = BASE) -> Traffic:
    return replace(traffic, rate=load * engines * full_rate(traffic, h100()))


def _places(traffic: Traffic) -> float:
    """As many requests as fill the engines' caches, and a tenth more that wait."""
    return round(1.1 * ENGINES * full_rows(traffic, h100())[0])
