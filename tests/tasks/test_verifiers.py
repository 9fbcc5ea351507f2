import json
from dataclasses import replace

import pytest

from ponder.tasks.calculator import written_call
from ponder.tasks.problems import Problem
from ponder.tasks.verifiers import VERIFIERS, verify
from ponder.tasks.workers import VerifierPool


def problem(answer: str, verifier: str) -> Problem:
    return Problem("test:1", "test", 1, "?", answer, verifier)


RIGHT = [
    (r"\frac{1}{2}", r"The answer is $\frac12$."),
    (r"\frac{1}{2}", r"\boxed{\dfrac{1}{2}}"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", "2/4"),
    (r"\frac{3}{2}", r"The answer is $\frac{6}{4}$."),
    (r"$\frac{1}{2}$", "$1/2$"),
    ("x^2+1", "$1+x^2$"),
    ("(1,2)", r"\boxed{(1, 2)}"),
    (r"\sqrt{8}", r"$2\sqrt{2}$"),
    (r"\boxed{72}", "72"),
    ("1,250", "It costs 1250 coins."),
    ("-5", "x is $-5$"),
    ("0.3333333", "1/3"),
    ("13", "(4 + 9)*2/2"),
    ("1024", "2^10"),
    (r"\{1,2,3\}", r"$\{3, 2, 1\}$"),
    (r"[0,1)", r"$[0, 1)$"),
    (r"\sin(x)+\pi", r"$\pi + \sin(x)$"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"$\begin{pmatrix}1&2\\3&4\end{pmatrix}$"),
    (r"\max(1,2)", r"$\max(1,2)$"),
    ("50%", r"50\%"),
]
WRONG = [
    (r"\frac{1}{2}", r"$\frac13$"),
    (r"\frac{3}{2}", r"$\frac{2}{3}$"),
    ("x^2+1", "$x^2-1$"),
    ("(1,2)", r"\boxed{(2, 1)}"),
    ("72", "I do not know."),
    ("72", ""),
    ("72", r"\boxed{\frac{"),
    ("13", "(4 + 9)*2"),
    ("0.333", "1/3"),
]


@pytest.mark.parametrize(("answer", "text"), RIGHT)
def test_equal_mathematics_is_right(answer: str, text: str) -> None:
    assert verify(problem(answer, "math"), text)


@pytest.mark.parametrize(("answer", "text"), WRONG)
def test_other_mathematics_is_wrong(answer: str, text: str) -> None:
    assert not verify(problem(answer, "math"), text)


@pytest.mark.parametrize("text", [r"\boxed{\$18.90}", r"It costs $18.90$."])
def test_a_dollar_of_money_marks_no_mathematics(text: str) -> None:
    assert verify(problem(r"\$18.90", "math"), text)
    assert not verify(problem(r"\$18.70", "math"), text)


def test_a_number_of_any_length_is_judged() -> None:
    """A policy that repeats itself writes such numbers, and floats end at 309 digits."""
    digits = "1" * 400
    call = written_call("calculate", json.dumps({"expression": digits}))
    evidence = {"metadata": {"target": int(digits), "numbers": [int(digits)]}}
    for verifier, text in (("number", digits), ("expression", digits), ("call", call)):
        judged = replace(problem(digits, verifier), evidence=evidence)
        assert [v.correct for v in VerifierPool().judge([(judged, text)])] == [True]
        assert not verify(
            replace(judged, answer="7", evidence={"metadata": {"numbers": [7]}}), text
        )


def test_mathematics_is_the_same_in_a_cell_and_in_the_library_itself() -> None:
    """A cell runs no text, which the library does: also numbers."""
    import math_verify

    pairs = [*RIGHT, *WRONG]
    with VerifierPool(1, time_limit_s=30) as pool:
        verdicts = pool.judge((problem(answer, "math"), text) for answer, text in pairs)
        assert not pool.failures
    theirs = [
        math_verify.verify(
            math_verify.parse(
                answer if "$" in answer or "boxed" in answer else f"\\boxed{{{answer}}}"
            ),
            math_verify.parse(text),
        )
        for answer, text in pairs
    ]
    assert [v.correct for v in verdicts] == theirs == [True] * len(RIGHT) + [False] * len(WRONG)


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("-7", "x is \u22127.", True),
        ("\u20137", r"$-7$", True),
        ("-1/2", "\u22121/2", True),
        ("1250", r"$1\,250$", True),
        (r"1\,250", "1250", True),
        ("1234567", "1\u202f234\u202f567", True),
        ("3\u20135", "\\boxed{3\u20135}", True),
        ("1/2", "<answer>1/2</answer>", True),
        ("5", "<answer>1/5</answer>", False),
        ("251", r"$1\,250$", False),
        (r"1\,250", "251", False),
        ("7", "x is \u22127.", False),
        ("3\u20135", r"\boxed{-2}", False),
    ],
)
def test_mathematics_may_be_typeset(answer: str, text: str, right: bool) -> None:
    assert verify(problem(answer, "math"), text) is right


def test_sympy_runs_texts_again_after_an_answer_was_judged() -> None:
    import sympy

    assert verify(problem("1/2", "math"), "0.5")
    assert sympy.sympify("sin(0) + 1") == 1


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
    assert trusted == {"number", "exact", "expression", "call"}


def test_trusted_answers_start_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.tasks.workers._Worker", None)
    items = [
        (problem("42", "number"), "It is 42."),
        (problem("42", "number"), "It is 43."),
        (problem("blue whale", "exact"), "The answer is blue whale."),
        (problem("blue whale", "exact"), "a whale"),
    ]
    with VerifierPool(1) as pool:
        assert [v.correct for v in pool.judge(items)] == [True, False, True, False]
