"""The bundled checkpoint's frontier: what is chosen, what counts, and the page of the record."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ponder.thought.budget import UNLIMITED
from studies.bundled import answers
from studies.bundled.answers import Answers, Measured
from studies.bundled.candidates import CANDIDATES, COLD_START
from studies.bundled.report import Choice, Record, chosen, page, plot, saving

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "server/ponder/models/tiny"
FIRST, SECOND, THIRD, *OTHERS = CANDIDATES
PROBLEMS = 1000
COLD: Measured = {"truncated": {UNLIMITED: Answers([1, 1, 1, 0] * 250, [100, 50] * 500)}}


def served(points: dict[int, tuple[float, int]]) -> Measured:
    """A share of right answers, the first ones, and a number of tokens by budget."""
    return {
        "served": {
            budget: Answers(
                [int(problem < share * PROBLEMS) for problem in range(PROBLEMS)],
                [tokens] * PROBLEMS,
            )
            for budget, (share, tokens) in points.items()
        }
    }


def test_the_fewest_tokens_within_two_points_of_the_cold_start_are_chosen() -> None:
    found = {
        COLD_START: COLD,
        **dict.fromkeys(OTHERS, served({40: (0.1, 1)})),
        FIRST: served({40: (0.729, 10), UNLIMITED: (0.9, 40)}),
        SECOND: served({40: (0.731, 30), UNLIMITED: (0.8, 35)}),
        THIRD: served({40: (0.75, 31), UNLIMITED: (0.75, 60)}),
    }
    assert chosen(found) == Choice(SECOND, 40)
    found |= {SECOND: served({40: (0.5, 1)}), THIRD: served({40: (0.5, 1)})}
    assert chosen(found) == Choice(FIRST, UNLIMITED)
    found |= {FIRST: served({40: (0.3, 10), 80: (0.6, 90)})}
    assert chosen(found) == Choice(FIRST, 80)  # none is as accurate: the best


def test_a_saving_is_paired_by_problem() -> None:
    test = {COLD_START: COLD, FIRST: served({40: (0.75, 30)})}
    found = saving(Record({}, Choice(FIRST, 40), "", test))
    assert found.tokens.mean == pytest.approx(30 / 75)
    assert found.accuracy.mean == pytest.approx(0)
    assert found.accuracy.low < 0 < found.accuracy.high


def test_a_hint_costs_its_tokens_and_is_given_from_the_smallest_trained_budget() -> None:
    hints = answers._hint_tokens(BUNDLED)
    assert {budget for budget, tokens in hints.items() if tokens == 0} == {0, 16, 32, UNLIMITED}
    assert min(hints[64], hints[200]) > 5


def test_the_page_shows_the_record(tmp_path: Path) -> None:
    points = {budget: (0.75, 30 + budget) for budget in answers.BUDGETS}
    test = {name: served(points) for name in (COLD_START, *CANDIDATES)}
    test[COLD_START] = {**test[COLD_START], "truncated": served(points)["served"]}
    record = Record({"cores": 2}, Choice(THIRD, 64), "abc", test)
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record
    shown = page(record)
    assert f"**Chosen: `{THIRD}`**, under a budget of 64" in shown
    assert "(94.0 instead of 29.0)" in shown
    assert "+0.0 (" in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(answers.BUDGETS)
    assert {row.count("|") for row in rows} == {len(CANDIDATES) + 4}
    plot(test, tmp_path / "tokens")
    assert (tmp_path / "tokens.svg").exists()


def test_what_is_bundled_is_what_was_chosen_and_the_docs_show_its_record() -> None:
    record = Record.read(ROOT / "docs/frontier.json")
    bundled = hashlib.sha256((BUNDLED / "model.safetensors").read_bytes())
    assert record.weights == bundled.hexdigest()
    assert page(record) == (ROOT / "docs/frontier.md").read_text(encoding="utf-8")
