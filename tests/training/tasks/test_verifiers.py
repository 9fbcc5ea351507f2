import pytest

from ponder.training.tasks.base import Problem
from ponder.training.tasks.verifiers import VERIFIERS, verify
from ponder.training.tasks.workers import VerifierPool


def problem(answer: str, verifier: str) -> Problem:
    return Problem("test:1", "test", 1, "?", answer, verifier)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (r"\frac{1}{2}", r"The answer is $\frac12$."),
        (r"\frac{1}{2}", r"\boxed{\dfrac{1}{2}}"),
        (r"\frac{1}{2}", "0.5"),
        (r"$\frac{1}{2}$", "$1/2$"),
        ("x^2+1", "$1+x^2$"),
        ("(1,2)", r"\boxed{(1, 2)}"),
        (r"\sqrt{8}", r"$2\sqrt{2}$"),
        (r"\boxed{72}", "72"),
        ("1,250", "It costs 1250 coins."),
        ("-5", "x is $-5$"),
    ],
)
def test_equal_mathematics_is_right(answer: str, text: str) -> None:
    assert verify(problem(answer, "math"), text)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (r"\frac{1}{2}", r"$\frac13$"),
        ("x^2+1", "$x^2-1$"),
        ("(1,2)", r"\boxed{(2, 1)}"),
        ("72", "I do not know."),
        ("72", ""),
        ("72", r"\boxed{\frac{"),
    ],
)
def test_other_mathematics_is_wrong(answer: str, text: str) -> None:
    assert not verify(problem(answer, "math"), text)


def test_mathematics_is_judged_in_workers_without_the_librarys_own_alarm() -> None:
    half = problem(r"\frac{1}{2}", "math")
    with VerifierPool(1, time_limit_s=30) as pool:
        verdicts = pool.judge([(half, "$0.5$"), (half, "$0.4$"), (half, "")])
        assert [v.correct for v in verdicts] == [True, False, False]
        assert not pool.failures
        (unreadable,) = pool.judge([(problem("", "math"), "72")])
    assert unreadable.failure == "error"


def test_numbers_and_texts_are_trusted_others_are_not() -> None:
    trusted = {name for name, verifier in VERIFIERS.items() if verifier.trusted}
    assert trusted == {"number", "exact"}


def test_trusted_answers_start_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.training.tasks.workers._Worker", None)
    items = [
        (problem("42", "number"), "It is 42."),
        (problem("42", "number"), "It is 43."),
        (problem("blue whale", "exact"), "The answer is blue whale."),
        (problem("blue whale", "exact"), "a whale"),
    ]
    with VerifierPool(1) as pool:
        assert [v.correct for v in pool.judge(items)] == [True, False, True, False]
