"""The simulation of a fleet: exact where arithmetic says what comes, and true to measurements."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.capacity import __main__ as command
from studies.capacity import report
from studies.capacity.engine import Job, SimulatedEngine
from studies.capacity.fleet import CLOSE, Fleet, Policy
from studies.capacity.profiles import H100_7B, Profile, h100, predicted
from studies.capacity.scenarios import BASE, SCENARIOS, full_rate, full_rows, simulate
from studies.capacity.traffic import Asked, Traffic
from studies.capacity.validation import checks

STEP = 0.01
STEADY = Profile("steady", base_s=STEP)


def ends(engine: SimulatedEngine[int], coming: list[tuple[float, int]]) -> list[float]:
    """When jobs of so many tokens end that come at these times, whose owners count from 0."""
    found, waiting = [math.inf] * len(coming), list(enumerate(coming))
    while True:
        at = engine.next_at()
        if waiting and waiting[0][1][0] <= at:
            owner, (now, tokens) = waiting.pop(0)
            engine.add(Job(owner, 0, tokens), now)
        elif at < math.inf:
            for job in engine.happen(at)[1]:
                found[job.owner] = at
        else:
            return found


def stepped(profile: Profile, coming: list[tuple[float, int]]) -> list[float]:
    """The same, step by step: rows join and leave between steps."""
    found, now, rows = [math.inf] * len(coming), 0.0, dict[int, int]()
    waiting = list(enumerate(coming))
    while waiting or rows:
        if not rows:
            now = max(now, waiting[0][1][0])
        while waiting and waiting[0][1][0] <= now:
            owner, (_, tokens) = waiting.pop(0)
            rows[owner] = tokens
        now += profile.step(len(rows), 0)
        for owner in list(rows):
            rows[owner] -= 1
            if not rows[owner]:
                found[owner] = now
                del rows[owner]
    return found


jobs = st.lists(
    st.tuples(st.integers(0, 400).map(lambda n: n / 100), st.integers(1, 200)), min_size=1
).map(sorted)


@given(jobs, st.integers(0, 5).map(lambda n: n / 1000))
def test_rows_end_when_they_would_step_by_step(
    coming: list[tuple[float, int]], row_s: float
) -> None:
    profile = Profile("toy", base_s=STEP, row_s=row_s)
    found, exact = ends(SimulatedEngine(profile), coming), stepped(profile, coming)
    # Virtual time lets a row in amid a step.
    most = STEP + row_s * len(coming)
    for one, other in zip(found, exact, strict=True):
        assert one == pytest.approx(other, abs=3 * most)


@given(jobs)
def test_rows_beyond_the_most_wait_for_their_turn(coming: list[tuple[float, int]]) -> None:
    found = ends(SimulatedEngine(replace(STEADY, rows=1)), coming)
    now = 0.0
    for (at, tokens), end in zip(coming, found, strict=True):
        now = max(now, at) + tokens * STEP
        assert end == pytest.approx(now, abs=1e-6)


@given(st.integers(2, 30), st.integers(50, 400), st.integers(0, 99))
def test_a_full_cache_preempts_and_loses_nothing(rows: int, tokens: int, seed: int) -> None:
    dice = random.Random(seed)
    coming = [(dice.random(), dice.randint(1, tokens)) for _ in range(rows)]
    engine = SimulatedEngine[int](replace(STEADY, cache=tokens, prompt_s=STEP / 10))
    found = ends(engine, sorted(coming))
    assert max(found) < math.inf
    assert engine.running == 0
    assert not engine.waiting


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 50)), min_size=1, max_size=40),
       st.integers(1, 200))  # fmt: skip
def test_a_budget_bounds_every_thought_and_every_request_is_answered(
    lengths: list[tuple[int, int]], budget: int
) -> None:
    asked = [Asked(0.05 * n, 10, thought, answer, budget)
             for n, (thought, answer) in enumerate(lengths)]  # fmt: skip
    outcome = Fleet(STEADY, 2, Policy("budget")).run(asked)
    assert len(outcome.answered()) == len(asked)
    for reply, one in zip(outcome.replies, asked, strict=True):
        assert reply.thinking == min(one.thought, budget)
        assert (reply.cause == "natural") == (one.thought <= budget)
        assert reply.ended_at == pytest.approx(
            one.at + (min(one.thought, budget) + one.answer) * STEP, abs=1e-6
        )
        assert reply.answer_at == pytest.approx(
            one.at + (min(one.thought, budget) + 1) * STEP, abs=1e-6
        )
    sampled = sum(min(thought, budget) + answer for thought, answer in lengths)
    assert outcome.sampled == sampled


def test_affinity_reads_a_cut_thought_no_second_time() -> None:
    profile = replace(STEADY, prompt_s=1e-6)
    traffic = Traffic(rate=5, seconds=60, budget=100)
    here, elsewhere = (
        Fleet(profile, 4, Policy("p", affinity=stays)).run(traffic.requests())
        for stays in (True, False)
    )
    asked = list(traffic.requests())
    cut = sum(one.thought > 100 for one in asked)
    prompts = sum(one.prompt for one in asked)
    assert prompts + CLOSE * cut <= here.prefilled <= prompts + (CLOSE + 16) * cut
    assert elsewhere.prefilled > here.prefilled + 50 * cut


@pytest.mark.parametrize("resume", [True, False])
def test_an_engine_that_dies_loses_no_answer_that_is_entered_again(resume: bool) -> None:
    traffic = Traffic(rate=10, seconds=30, thought=100, budget=150)
    asked = list(traffic.requests())
    outcome = Fleet(STEADY, 3, Policy("p", resume=resume)).run(asked, deaths={15.0: 1})
    failed = [one for one in outcome.replies if one.failed]
    assert bool(failed) is not resume
    assert len(outcome.answered()) == len(asked) - len(failed)
    for one in outcome.answered():
        assert one.thinking == min(150, one.asked.thought)


def test_a_deadline_closes_thoughts_in_time() -> None:
    traffic = Traffic(rate=10, seconds=60, thought=400, answer=20)
    outcome = Fleet(STEADY, 2, Policy("deadline", deadline_s=3.0)).run(traffic.requests())
    closed = [one for one in outcome.replies if one.cause == "deadline"]
    assert 0 < len(closed) < len(outcome.replies)
    for one in closed:
        assert 0 < one.closed_at - one.asked.at <= 3.0 + 1e-6
        assert 0 < one.thinking < one.asked.thought
    assert {one.cause for one in outcome.replies} == {"natural", "deadline"}


def test_an_answer_that_never_came_has_no_first_token() -> None:
    asked = [Asked(0.0, 10, 300, 200, 100.0), Asked(0.1, 10, 50, 5)]
    outcome = Fleet(STEADY, 1, Policy("impatient")).run(asked, patience=0.7)
    assert [one.answer_at is None for one in outcome.replies] == [True, False]
    assert (outcome.first_answer_s(1.0), len(outcome.answered())) == (math.inf, 1)


def test_refusals_of_the_warm_up_are_not_reported() -> None:
    asked = [Asked(0.01 * n, 10, 500, 10) for n in range(100)]
    outcome = Fleet(STEADY, 1, Policy("full", places=1)).run(asked, warm_up=0.5)
    assert outcome.refused == 50


def test_more_requests_than_places_are_refused() -> None:
    outcome = Fleet(STEADY, 1, Policy("full", places=3)).run(
        Asked(0.001 * n, 10, 100, 10) for n in range(10)
    )
    assert (outcome.refused, outcome.most_inside) == (7, 3)


def test_traffic_keeps_its_rate_in_bursts() -> None:
    calm = list(Traffic(rate=20, seconds=600).requests())
    bursts = list(Traffic(rate=20, seconds=600, burst=3.0).requests())
    assert len(bursts) == pytest.approx(len(calm), rel=0.05)
    inside = sum(one.at % 60 >= 50 for one in bursts) / len(bursts)
    assert inside == pytest.approx(0.5, abs=0.03)


def test_a_load_of_one_fills_the_cache() -> None:
    """The unit of load, found in a simulation: above it queues grow, below it they do not."""
    traffic = replace(BASE, budget=1024, seconds=240.0)
    rate = 2 * full_rate(traffic, h100())
    below, above = (
        simulate("p", load, replace(traffic, rate=load * rate), Policy("p"), engines=2, seeds=(0,))
        for load in (0.85, 1.2)
    )
    rows, _ = full_rows(traffic, h100())
    assert below.mean("most_inside") < 2 * rows < above.mean("most_inside")


def test_three_published_rows_are_met_and_the_fourth_is_foretold() -> None:
    for row in H100_7B[:3]:
        assert predicted(h100(), row) == pytest.approx(row.tokens_per_second)


def test_it_gives_what_was_measured_within_a_tenth() -> None:
    found = checks()
    assert len(found) == 3
    assert all(abs(one.error) < 0.1 for one in found), found


def test_the_page_is_of_the_stored_figures() -> None:
    found = command.read(command.ROOT / "docs" / "capacity.json")
    assert list(found) == list(SCENARIOS) == list(report.SECTIONS) == list(report.SAYS)
    written = (command.ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
    assert report.page(h100(), checks(), found) == written


def test_the_command_writes_the_page(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path_factory.mktemp("docs")
    small = itertools.islice(command.read(command.ROOT / "docs" / "capacity.json")["failures"], 8)
    rows = list(small)
    monkeypatch.setitem(command.SCENARIOS, "failures", lambda: rows)  # type: ignore[arg-type]
    assert command.main(["failures", "--out", str(out)]) == 0
    assert "failures: 8 points" in capsys.readouterr().out
    assert command.read(out / "capacity.json") == {"failures": rows}
    assert "An engine dies" in (out / "capacity.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        command.main(["nothing"])
