import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.training.tasks.verify import final_number, same_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
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
