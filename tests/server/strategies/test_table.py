"""The table of strategies, and the one that docs/extending gives to copy."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest
from median import Median

from ponder.protocol.fields import StrategyAsk
from ponder.server.strategies.protocol import Answer
from ponder.server.strategies.table import STRATEGIES

from .test_group import think

pytestmark = pytest.mark.quick


def test_the_wire_knows_every_strategy() -> None:
    assert set(get_args(StrategyAsk.model_fields["method"].annotation)) == set(STRATEGIES)


def test_a_strategy_of_ones_own_is_a_file_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "self_consistency", lambda _: Median())  # type: ignore[index]
    said = think([9] * 5, ["1", "about 30", "many", "99", "20"], 100, answer="number")
    assert (said.report.chosen, said.answer) == (4, "20")


@pytest.mark.parametrize(
    ("said", "chosen"),
    [(["3", "1", "2"], 2), (["4", "1"], 1), ([""], 0), (["1/2", "0.4", "7"], 0)],
)
def test_the_middle_one_is_given(said: list[str], chosen: int) -> None:
    answers = [Answer(text, text) for text in said]
    assert asyncio.run(Median().choose(answers, None)) == chosen


def test_a_thought_that_failed_has_no_number() -> None:
    answers = [Answer("", "", failed=True), Answer("none", "")]
    assert asyncio.run(Median().choose(answers, None)) == 1
