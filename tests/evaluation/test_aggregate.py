import pytest

from ponder.evaluation.aggregate import anytime, hint_ratio, summarise, tallies
from ponder.evaluation.evaluate import Condition, Sample
from ponder.tasks.problems import Problem

from .measured import Oracle, measure

NATURAL = Condition("natural")


def problem(number: int) -> Problem:
    return Problem(f"sum:{number}", "sum", 1, "?", "2")


def sample(
    number: int, correct: bool, tokens: int | None, condition: Condition = NATURAL, cause: str = ""
) -> Sample:
    return Sample(problem(number), condition, correct, tokens, cause or "natural")


def test_cells_per_condition_and_difficulty() -> None:
    samples = measure(Oracle())
    cells = summarise(samples, lambda s: s.condition)
    free, none = cells[Condition("truncated", -1)], cells[Condition("truncated", 0)]
    assert free == cells[NATURAL]
    assert (free.accuracy.mean, free.natural, free.problems, free.samples) == (1.0, 1.0, 35, 70)
    assert (none.accuracy.mean, none.natural) == (0.0, 0.0)
    levels = summarise(samples, lambda s: (s.condition, s.problem.difficulty))
    tokens = levels[NATURAL, 3].tokens
    assert tokens is not None and tokens.mean == 30.0


def test_pass_rates_by_k() -> None:
    half = [sample(1, i % 2 == 0, 5) for i in range(4)]
    never = [sample(2, False, 5) for _ in range(4)]
    cell = summarise(half + never, lambda s: s.condition)[NATURAL]
    assert list(cell.any_pass) == [1, 2, 4]
    assert cell.any_pass[1] == cell.all_pass[1]
    assert cell.any_pass[2].mean == pytest.approx((5 / 6) / 2)
    assert cell.all_pass[2].mean == pytest.approx((1 / 6) / 2)
    assert (cell.any_pass[4].mean, cell.all_pass[4].mean) == (0.5, 0.0)


def test_lengths_are_unknown_unless_every_answer_tells_its_own() -> None:
    whole = [sample(1, True, 4), sample(2, True, 8)]
    cell = summarise(whole, lambda s: 0)[0]
    assert cell.tokens is not None and cell.tokens.mean == 6.0
    assert summarise([*whole, sample(1, True, None)], lambda s: 0)[0].tokens is None
    failed = [*whole, sample(1, False, None, cause="error")]
    cell = summarise(failed, lambda s: 0)[0]
    assert cell.tokens is not None and cell.tokens.mean == 6.0


def test_a_problem_whose_requests_all_failed_has_no_length() -> None:
    failed = [sample(3, False, None, cause="error") for _ in range(2)]
    cell = summarise([sample(1, True, 4), sample(2, True, 8), *failed], lambda s: 0)[0]
    assert cell.tokens is not None and cell.tokens.mean == 6.0
    assert (cell.measured, cell.problems, cell.samples) == (2, 3, 4)
    unreported = summarise([sample(1, True, 4), sample(2, True, None), *failed], lambda s: 0)[0]
    assert (unreported.tokens, unreported.measured) == (None, 2)
    nothing = summarise(failed, lambda s: 0)[0]
    assert (nothing.tokens, nothing.measured) == (None, 0)


def test_anytime_is_the_mean_over_positive_budgets() -> None:
    # Of difficulties 1 to 7, 2 need at most 20 tokens and 4 at most 40.
    found = anytime(measure(Oracle(), ["truncated"]))
    assert found is not None
    assert found.mean == pytest.approx((2 / 7 + 4 / 7) / 2)
    assert 0 < found.low < found.mean < found.high < 1
    assert anytime(measure(Oracle(), ["natural"])) is None
    assert anytime(measure(Oracle(), ["truncated"], [0, -1])) is None


def test_the_hint_ratio_compares_the_outer_hints() -> None:
    found = hint_ratio(measure(Oracle(), ["hinted"]))
    assert found is not None
    assert found.mean == pytest.approx((40 + 8) / (40 + 4))
    assert found.low < found.mean < found.high
    assert hint_ratio(measure(Oracle(), ["natural"])) is None
    assert hint_ratio(measure(Oracle(reports_tokens=False), ["hinted"])) is None


def test_the_hint_ratio_leaves_out_what_was_answered_under_one_hint_alone() -> None:
    few, many = Condition("hinted", 40), Condition("hinted", 80)
    samples = [sample(n, True, 10 * n, few) for n in (1, 2)]
    samples += [sample(n, True, 30 * n, many) for n in (1, 2)]
    both = hint_ratio(samples)
    alone = [sample(3, True, 90, few), sample(3, False, None, many, "error")]
    assert both is not None and both.mean == 3 and hint_ratio([*samples, *alone]) == both
    assert hint_ratio(alone) is None


def test_tallies_hold_what_every_problem_did() -> None:
    samples = [sample(1, True, 4), sample(1, False, 8, cause="budget"), sample(2, True, 3)]
    by_problem = tallies(samples)[NATURAL]
    first = by_problem["sum:1"]
    assert (first.samples, first.correct, first.tokens, first.natural) == (2, 1, 6.0, 1)
    assert list(by_problem) == ["sum:1", "sum:2"]
