"""What the meter guesses while a thought runs, and what it says at its end."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.cli.meter import Meter, known_budget, summary
from ponder.client.request import Budget
from ponder.protocol.response import ModelList, PonderReport

from .scripted import models, report


def test_the_guess_is_never_below_the_deltas_nor_above_the_budget() -> None:
    meter = Meter()
    meter.start(10)
    for character in "abc":
        meter.add(character)
    assert meter.used == 3
    meter.add("x" * 400)
    assert meter.used == 10


def test_without_a_limit_the_guess_is_not_cut() -> None:
    meter = Meter()
    meter.start(None)
    meter.add("x" * 400)
    assert meter.used == 100


def test_a_report_makes_the_next_guess_better() -> None:
    meter = Meter()
    meter.start(None)
    meter.add("x" * 100)
    meter.finish(PonderReport(**report(thinking_tokens=50)))
    meter.start(None)
    meter.add("x" * 100)
    assert meter.used == 50


def test_an_answer_without_a_thought_teaches_nothing() -> None:
    meter = Meter()
    meter.start(0)
    meter.finish(PonderReport(**report(thinking_tokens=0)))
    meter.start(None)
    meter.add("x" * 100)
    assert meter.used == 25


@pytest.mark.parametrize(
    ("asked", "capabilities", "known"),
    [
        (None, {}, None),
        (-1, {}, None),
        (8, {}, 8),
        (0, {}, 0),
        (None, {"default_budget": 64}, 64),
        (-1, {"default_budget": 64}, None),
        (None, {"budget_ceiling": 16}, 16),
        (None, {"budget_ceiling": 0}, 0),
        (32, {"budget_ceiling": 16}, 16),
        (8, {"budget_ceiling": 16}, 8),
        (None, {"thinks": False}, 0),
        ("auto", {"default_budget": 64, "auto_budget": 40}, None),
        ("auto", {"budget_ceiling": 16}, 16),
    ],
)
def test_the_budget_known_before_the_answer(
    asked: Budget | None, capabilities: dict[str, Any], known: int | None
) -> None:
    card = ModelList.model_validate(models("tiny", **capabilities)).data[0]
    assert known_budget(asked, card.ponder) == known


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "thought 32/32 tokens · cut at the budget · answer 7 tokens"),
        (
            {"budget_source": "ceiling", "answer_tokens": 1},
            "thought 32/32 tokens · cut at the server's ceiling · answer 1 token",
        ),
        (
            {"end_cause": "length", "budget_source": "context"},
            "thought 32/32 tokens · cut at the end of the context · answer 7 tokens",
        ),
        (
            {"end_cause": "natural", "thinking_tokens": 20},
            "thought 20/32 tokens · ended by itself, 12 to spare · answer 7 tokens",
        ),
        (
            {"end_cause": "natural"},
            "thought 32/32 tokens · ended by itself · answer 7 tokens",
        ),
        (
            {"end_cause": "natural", "budget_source": "context", "budget_effective": 3000},
            "thought 32 tokens · ended by itself · answer 7 tokens",
        ),
        (
            {"end_cause": "loop", "budget_effective": 999},
            "thought 32/999 tokens · closed because it repeated itself · answer 7 tokens",
        ),
        (
            {"end_cause": "loop", "budget_source": "context", "budget_effective": 3000},
            "thought 32 tokens · closed because it repeated itself · answer 7 tokens",
        ),
        (
            {"end_cause": "word_of_tomorrow", "budget_effective": 999},
            "thought 32/999 tokens · ended by word_of_tomorrow · answer 7 tokens",
        ),
        (
            {"end_cause": "disabled", "budget_effective": 0, "thinking_tokens": 0},
            "no thought · answer 7 tokens",
        ),
        (
            {"end_cause": "unread", "budget_effective": 0, "thinking_tokens": 0},
            "thought not understood · answer 7 tokens",
        ),
        (
            {"end_cause": "budget", "budget_effective": 0, "thinking_tokens": 0},
            "no thought · answer 7 tokens",
        ),
    ],
)
def test_the_summary_says_what_the_thought_took(changes: dict[str, Any], line: str) -> None:
    assert summary(PonderReport(**report(**changes)), "stop") == line


def test_the_summary_says_when_the_answer_was_cut() -> None:
    line = summary(PonderReport(**report()), "length")
    assert line.endswith("answer 7 tokens, cut at its limit")


@pytest.mark.parametrize(("met", "said"), [(None, ""), (True, ""), (False, ", after its deadline")])
def test_a_late_answer_is_said_to_be_late(met: bool | None, said: str) -> None:
    line = summary(
        PonderReport(**report(answer_tokens=7, end_cause="deadline", deadline_met=met)), "stop"
    )
    assert line.endswith(f"closed to answer in time · answer 7 tokens{said}")
