import asyncio
from dataclasses import replace

import pytest

from ponder.evaluation.evaluate import (
    MODES,
    Condition,
    conditions_of,
    distinct,
    evaluate,
    sample_seed,
)
from ponder.evaluation.protocol import Ask, Reply, ResponderError, Subject, Wording
from ponder.tasks.workers import VerifierPool
from tasks import judges

from .measured import PROBLEMS, Oracle, measure


def test_conditions_are_the_modes_in_order_without_repeats() -> None:
    subject = Subject("m", trained_budgets=(80, 40, 80))
    found = conditions_of(["truncated", "hinted", "natural"], [-1, 32, 8, 32], subject)
    assert [condition.name for condition in found] == [
        "natural",
        "hint 40",
        "hint 80",
        "8",
        "32",
        "free",
    ]
    assert distinct(found) == 5  # natural and free are one thought


def test_a_mode_that_cannot_be_measured_says_what_is_lacking() -> None:
    subject = Subject("m", lacks={"efficient": "a prefill", "hinted": "a prefill"})
    with pytest.raises(
        ResponderError, match=r"efficient.* lacks a prefill; possible are natural, truncated"
    ):
        conditions_of(["natural", "efficient"], [8], subject)


def test_every_problem_is_asked_in_every_mode_with_the_same_seeds() -> None:
    oracle = Oracle()
    assert len(measure(oracle)) == 35 * 2 * (1 + 1 + 2 + 4 + 4)
    by_hint = {
        hint: {(ask.question, ask.seed) for ask in oracle.asked if ask.hint == hint}
        for hint in (None, "minimal", 40, 80, "served")
    }
    assert len(by_hint[None]) == 70
    assert all(asked == by_hint[None] for asked in by_hint.values())
    cut = (None, "served")
    assert {ask.budgets for ask in oracle.asked if ask.hint in cut} == {(0, 20, 40, -1)}
    assert {ask.budgets for ask in oracle.asked if ask.hint not in cut} == {(-1,)}


def test_a_sample_is_the_reply_to_its_own_condition() -> None:
    samples = measure(Oracle())
    assert {s.condition.mode for s in samples} == set(MODES)
    for sample in samples:
        needed = 10 * sample.problem.difficulty
        if sample.condition.mode == "hinted":
            needed += (sample.condition.budget or 0) // 10
        cut = sample.condition.cut
        whole = cut < 0 or needed <= cut
        assert (sample.correct, sample.end_cause == "natural") == (whole, whole)
        assert sample.thinking_tokens == (needed if whole else cut)


def test_all_answers_are_counted() -> None:
    counted: list[int] = []
    conditions = [Condition("natural"), Condition("truncated", 8), Condition("truncated", -1)]
    asyncio.run(
        evaluate(
            Oracle(),
            PROBLEMS,
            pool=VerifierPool(),
            conditions=conditions,
            samples=3,
            seed=0,
            advance=counted.append,
        )
    )
    assert sum(counted) == len(PROBLEMS) * 3 * distinct(conditions)


def test_every_question_is_asked_in_the_wording() -> None:
    oracle, wording = Oracle(), Wording("Be brief.", " Box it.")
    with VerifierPool(1) as pool:
        asyncio.run(
            evaluate(
                oracle,
                PROBLEMS,
                pool=pool,
                conditions=[Condition("natural")],
                samples=1,
                seed=0,
                advance=lambda _: None,
                wording=wording,
            )
        )
    assert {ask.wording for ask in oracle.asked} == {wording}


def test_a_verifier_that_hangs_costs_a_wrong_score() -> None:
    class Parrot(Oracle):
        def reply(self, ask: Ask, budget: int) -> Reply:
            return Reply(ask.question, 1, "natural")

    problems = [replace(judges.PROBLEM, id=text, question=text) for text in ("right", "hang")]
    with VerifierPool(1, time_limit_s=2.0, verifiers=judges.VERIFIERS) as pool:
        samples = asyncio.run(
            evaluate(
                Parrot(),
                problems,
                pool=pool,
                conditions=[Condition("natural")],
                samples=1,
                seed=0,
                advance=lambda _: None,
            )
        )
    assert [sample.correct for sample in samples] == [True, False]
    assert pool.failures == {"time": 1}


def test_seeds_fit_every_engine_and_differ() -> None:
    seeds = [sample_seed(0, problem, n) for problem in PROBLEMS for n in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
