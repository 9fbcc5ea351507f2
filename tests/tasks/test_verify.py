import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.verify import final_answer, final_number, same_number, same_text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 3/2.", None),
        (r"\frac{3}{4}", None),
        ("2^{10}", None),
        (r"\frac12", None),
        (r"\dfrac{1}2", None),
        ("3\u20444", None),
        (r"\sqrt{2}", None),
        (r"3\sqrt[3]{8}", None),
        (r"2\pi", None),
        ("2 \u03c0", None),
        ("1e3", None),
        ("the area is 12 cm^2", None),
        ("x = - 5", "-5"),
        ("7 - 5", "5"),
        ("- 5 apples", "5"),
        ("\u20135", "-5"),
        ("3\u20135", "5"),
        ("-$5", "-5"),
        (r"-\$5.50", "-5.5"),
        ("1{,}250", "1250"),
        (r"1\,250", "1250"),
        ("1\u202f250", "1250"),
        ("12!", "12"),
        ("9" * 5000, "9" * 5000),
        (r"\boxed{4}", "4"),
        ("1/2 + 1/2 = 1", "1"),
        ("x is \u22127", "-7"),
        ("it is .5", "0.5"),
        ("The answer is 42.", "42"),
        ("42", "42"),
        ("first 7, then 12", "12"),
        ("it is -5", "-5"),
        ("10-4", "4"),
        ("1,250 apples", "1250"),
        ("1,25", "25"),
        ("007", "7"),
        ("2.50", "2.5"),
        ("3.0", "3"),
        ("-0", "0"),
        ("none", None),
        ("", None),
    ],
)
def test_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


@given(st.integers(-(10**9), 10**9), st.text())
def test_a_stated_number_is_read_whatever_stands_before(number: int, before: str) -> None:
    assert same_number(str(number), f"{before} so: {number}.")
    assert not same_number(str(number), f"{before} so: {number + 1}.")


def test_a_text_without_a_number_is_wrong() -> None:
    assert not same_number("3", "three")


@pytest.mark.parametrize("text", ["red", "", "7"])
def test_a_reference_without_a_number_is_matched_by_nothing(text: str) -> None:
    assert not same_number("blue", text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("blue", "blue"),
        ("  blue\n", "blue"),
        ("The answer is blue.", "blue"),
        ("The answer is red. No: the answer is 3.5.", "3.5"),
        ("Answer: blue whale", "blue whale"),
        ("The answer is: blue.", "blue"),
        ("**Answer:** blue", "blue"),
        ("**Answer**: blue", "blue"),
        ("The answer is **blue**.", "blue"),
        ("The answer isn't known", "The answer isn't known"),
        ("It is <answer> blue. </answer>, the answer is red", "blue."),
        ("<answer>red <answer>blue</answer> <answer>", "blue"),
        ("</answer> blue", "</answer> blue"),
        ("<answer>blue", "<answer>blue"),
        ("<answer>red</answer><answer>blue\nwhale</answer>", "blue\nwhale"),
        ("Blue is it.", "Blue is it."),
        ("", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def test_texts_are_compared_letter_by_letter() -> None:
    assert same_text(" blue", "The answer is blue.")
    assert same_text("U.S.", "The answer is U.S.")
    assert not same_text("blue", "The answer is Blue.")
    assert not same_text("blue", "blue or red")
    assert same_text(".", ".")
    assert not same_text(".", "")


def test_a_tag_that_is_opened_again_and_again_is_read_at_once() -> None:
    text = "<answer>" * 200_000
    assert final_answer(text) == text
