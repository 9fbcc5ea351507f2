"""Budgets shrink while there is more to do than the engine can do, and grow again afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import Demand
from ponder.server.shedding import (
    FALLS_S,
    HIGH,
    LOW,
    RISES_S,
    SHARES,
    Level,
    Shedding,
    load_of,
)

from .conftest import Running, Serve
from .test_pools import ANSWER, CHAT, DIALECTS, ENDLESS, post, report
from .test_savings import savings, series

looks = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 2)), max_size=60)  # seconds, load


def lived(looks: list[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Time, load and step of every look."""
    level, now, found = Level(), 0.0, []
    for seconds, load in looks:
        now += seconds
        level = level.after(load, now)
        found.append((now, load, level.step))
    return found


@given(looks)
def test_a_level_rises_by_one_and_only_under_load(looks: list[tuple[float, float]]) -> None:
    low, risen, before = 0.0, -RISES_S, 0
    for now, load, step in lived(looks):
        assert 0 <= step < len(SHARES)
        if step > before:
            assert step == before + 1
            assert now - low >= RISES_S - 1e-9
            assert now - risen >= RISES_S - 1e-9
            risen = now
        if load < HIGH:
            low = now
        before = step


@given(looks)
def test_a_level_falls_no_sooner_than_its_time_after_the_last_high_load(
    looks: list[tuple[float, float]],
) -> None:
    high, before = 0.0, 0
    for now, load, step in lived(looks):
        if step < before:
            assert load < LOW
            assert now - high >= FALLS_S - 1e-9
        if load >= LOW:
            high = now
        before = step


@given(looks, st.floats(LOW, HIGH, exclude_max=True))
def test_within_the_band_a_level_stays(looks: list[tuple[float, float]], load: float) -> None:
    level = Level()
    for seconds, at in looks:
        level = level.after(at, level.at + seconds)
    for _ in range(50):
        after = level.after(load, level.at + 20)
        assert after.step == level.step
        level = after


@given(st.lists(st.floats(0, 1.5), min_size=1))
def test_the_level_is_a_function_of_its_past_and_the_load(loads: list[float]) -> None:
    once, again = ([step for *_, step in lived([(1.0, load) for load in loads])] for _ in "ab")
    assert once == again


def test_high_load_sheds_step_by_step_to_a_quarter() -> None:
    found = lived([(0, 1.0), *[(RISES_S, 1.0)] * 5])
    assert [SHARES[step] for *_, step in found] == [1, 0.75, 0.5, 0.25, 0.25, 0.25]


def test_a_quiet_night_is_over_at_the_first_look() -> None:
    level = Level(step=3, side=1, since=10.0, at=20.0)
    assert level.after(0.0, now=20.0 + 3 * FALLS_S).step == 0
    assert level.after(0.0, now=20.0 + FALLS_S).step == 2
    assert level.after(1.0, now=30_000.0).step == 3


def test_a_first_burst_after_it_sheds_nothing() -> None:
    assert Level().after(1.0, now=30_000.0).step == 0


def test_a_load_around_a_threshold_does_not_flap() -> None:
    steps = [step for *_, step in lived([(0.5, 0.9 + 0.01 * (-1) ** n) for n in range(400)])]
    assert sum(one != other for one, other in pairwise(steps)) <= len(SHARES)


@pytest.mark.parametrize(
    ("taken", "demand", "load"),
    [
        (0.25, Demand(), 0.25),
        (0.25, Demand(running=8, cache=0.95), 0.95),
        (0.25, Demand(running=8, waiting=8, cache=0.5), 1.0),
        (0.0, Demand(waiting=3), 3.0),
    ],
)
def test_the_fullest_of_what_can_be_full_is_the_load(
    taken: float, demand: Demand, load: float
) -> None:
    assert load_of(taken, demand) == load


# -- over HTTP -------------------------------------------------------------------------------

FULL = Demand(running=4, cache=1.0)


class Pressed:
    """A server on a scripted clock, whose engine says that its cache is full."""

    def __init__(self, serve: Serve, shed_load: str = "unasked", **settings: object) -> None:
        self.running = serve(
            ENDLESS, ANSWER, shed_load=shed_load, **{"default_budget": 400, **settings}
        )
        self.now = 0.0
        shedding = self.running.service.planner.shedding
        assert shedding is not None
        shedding._clock, shedding._level = lambda: self.now, Level()
        self.running.engine.demand = FULL

    def at(self, step: int) -> Running:
        """The server when its level has come to this step."""
        self.pass_by(0.0)
        for _ in range(step):
            self.pass_by(RISES_S)
        return self.running

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        shedding = self.running.service.planner.shedding
        assert shedding is not None
        shedding.look()


def budget(running: Running, **fields: Any) -> tuple[int, str]:
    body = {"messages": CHAT[1]["messages"], "model": "tiny", **fields}
    said = report(httpx.post(f"{running.url}{CHAT[0]}", json=body))
    assert said["thinking_tokens"] <= said["budget_effective"]
    return said["budget_effective"], said["budget_source"]


@pytest.mark.parametrize(
    ("step", "unasked", "asked"), [(0, 400, 200), (1, 300, 200), (2, 200, 200), (3, 100, 200)]
)
def test_budgets_that_nobody_asked_for_shrink(
    serve: Serve, step: int, unasked: int, asked: int
) -> None:
    running = Pressed(serve).at(step)
    assert budget(running) == (unasked, "load" if step else "default")
    assert budget(running, enable_thinking=True) == (unasked, "load" if step else "default")
    assert budget(running, thinking_token_budget=200) == (200, "request")
    assert budget(running, reasoning_effort="minimal") == (128, "effort")


@pytest.mark.parametrize(
    ("step", "unasked", "asked"), [(0, 400, 200), (1, 300, 200), (2, 200, 150), (3, 100, 100)]
)
def test_those_that_were_asked_for_follow_where_the_operator_says_so(
    serve: Serve, step: int, unasked: int, asked: int
) -> None:
    running = Pressed(serve, "all").at(step)
    assert budget(running)[0] == unasked
    source = "load" if step > 1 else "request"
    assert budget(running, thinking_token_budget=200) == (asked, source)
    assert budget(running, thinking_token_budget=1) == (1, "request")
    assert budget(running, thinking_token_budget=0) == (0, "request")


def test_budgets_grow_again(serve: Serve) -> None:
    pressed = Pressed(serve)
    running = pressed.at(2)
    assert budget(running) == (200, "load")
    running.engine.demand = Demand()
    for passed, found in ((FALLS_S - 1, 200), (1, 300), (FALLS_S, 400)):
        pressed.now += passed
        assert budget(running)[0] == found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", dict(DIALECTS))
def test_every_dialect_says_so(serve: Serve, path: str, stream: bool) -> None:
    running = Pressed(serve, "all").at(3)
    said = report(post(running, path, stream=stream))
    assert (said["budget_requested"], said["budget_effective"]) == (400, 200)
    assert (said["budget_source"], said["end_cause"]) == ("load", "budget")


def test_an_unlimited_budget_shrinks_too(serve: Serve) -> None:
    running = Pressed(serve, default_budget=-1, budget_ceiling=80).at(3)
    assert budget(running) == (20, "load")


def test_the_least_thought_asked_for_does_not_hold_against_the_load(serve: Serve) -> None:
    running = Pressed(serve).at(3)
    assert budget(running, ponder={"min_thinking_tokens": 150}) == (100, "load")


def test_a_pool_lends_of_what_the_load_leaves(serve: Serve) -> None:
    running = Pressed(serve, pool=["tenant=1500/30d"]).at(3)
    assert budget(running) == (100, "load")
    assert budget(running, n=2) == (100, "load")
    running = Pressed(serve, pool=["tenant=900/30d"]).at(3)
    assert budget(running) == (90, "pool")


def test_a_full_house_is_load(serve: Serve) -> None:
    """Also on an engine that does not know what it has to do."""
    running = serve(shed_load="unasked", max_running=10)
    running.engine.demand = Demand()
    running.service.gate.running = 9
    load: Callable[[], float] = running.service._load
    assert load() == 0.9
    running.service.gate.running = 0
    assert load() == 0.0


def test_nothing_is_shed_unless_the_operator_says_so(serve: Serve) -> None:
    running = serve(ENDLESS, ANSWER, default_budget=40)
    running.engine.demand = FULL
    assert running.service.planner.shedding is None
    assert budget(running) == (40, "default")
    assert series(running, "ponder_load_level") == {}
    assert savings(running)["load"] is None


def test_the_level_is_exported_and_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    pressed = Pressed(serve)
    running = pressed.at(2)
    text = httpx.get(f"{running.url}/metrics").text
    assert re.findall(r"^ponder_load_(?:level|ratio) .*$", text, re.MULTILINE) == [
        "ponder_load_level 2.0",
        "ponder_load_ratio 1.0",
    ]
    assert "the load is 1.00: budgets are shed to 50 %" in caplog.text


# -- what it costs, apart from the saving policy ---------------------------------------------

HOLDOUT = {"holdout": 0.5, "holdout_key": "a key of sixteen"}


def test_the_draw_of_the_load_is_a_draw_of_its_own(serve: Serve) -> None:
    service = serve(shed_load="unasked", **HOLDOUT).service
    names = [f"user:{number}" for number in range(400)]
    pairs = [
        (service.planner.holdout.assign(name), service.planner.load_holdout.assign(name))
        for name in names
    ]
    found = dict.fromkeys(((p, q) for p in ("policy", "holdout") for q in ("shed", "spared")), 0)
    for policy, load in pairs:
        assert policy.conversation != load.conversation
        found[policy.arm, load.arm] += 1
    assert all(70 <= count <= 130 for count in found.values()), found  # 100 ± 3.5 deviations


def test_both_arms_of_the_policy_are_shed_and_some_of_both_are_spared(serve: Serve) -> None:
    """So the savings hold no part of the load's effect."""
    running = Pressed(serve, default_budget=40, budget_ceiling=400, **HOLDOUT).at(3)
    found = set()
    for name in map(str, range(24)):
        arms = [
            draw.assign(f"user:{name}").arm
            for draw in (running.service.planner.holdout, running.service.planner.load_holdout)
        ]
        found.add((*arms, *budget(running, user=name)))
    assert found == {
        ("policy", "shed", 10, "load"),
        ("policy", "spared", 40, "default"),
        ("holdout", "shed", 100, "load"),
        ("holdout", "spared", 400, "ceiling"),
    }


def test_who_opts_out_of_being_held_out_is_shed_too(serve: Serve) -> None:
    running = Pressed(serve, **HOLDOUT).at(3)
    names = (str(number) for number in range(100))
    draw = running.service.planner.load_holdout
    spared = next(name for name in names if draw.assign(f"user:{name}").arm == "spared")
    assert budget(running, user=spared, ponder={"holdout": "never"}) == (100, "load")


def test_what_comes_under_load_is_charged_to_its_arm_as_well(serve: Serve) -> None:
    pressed = Pressed(serve, budget_ceiling=400, **HOLDOUT)
    running = pressed.at(0)
    budget(running, user="before")
    assert savings(running)["load"]["tokens"]["policy"]["count"] == 0
    pressed.pass_by(RISES_S)
    arms = {"shed": 0, "spared": 0}
    for name in map(str, range(8)):
        arms[running.service.planner.load_holdout.assign(f"user:{name}").arm] += 1
        budget(running, user=name)
    said = savings(running)
    load = said["load"]
    for measure in ("tokens", "seconds", "forced", "empty"):
        assert load[measure]["policy"]["count"] == arms["shed"] > 0
        assert load[measure]["holdout"]["count"] == arms["spared"] > 0
        assert load[measure]["status"] == "insufficient data"
    assert load["tokens"]["policy"]["mean"]["value"] < load["tokens"]["holdout"]["mean"]["value"]
    assert said["tokens"]["policy"]["count"] + said["tokens"]["holdout"]["count"] == 9
    counted = series(running, "ponder_holdout_tokens_count")
    assert sum(counted.values()) == 9
    assert not [labels for labels in counted if "shed" in labels or "spared" in labels]


def test_without_a_holdout_nothing_is_drawn(serve: Serve) -> None:
    running = Pressed(serve).at(3)
    assert budget(running, user="somebody") == (100, "load")
    load = savings(running)["load"]
    assert load["tokens"]["policy"]["count"] == load["tokens"]["holdout"]["count"] == 0


def test_a_shedding_without_a_clock_of_its_own_goes_by_the_machines() -> None:
    assert Shedding(lambda: 0.0, asked=False).look().step == 0
