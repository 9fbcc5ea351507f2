"""When an answer is due: what header and body say, together or alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ponder.protocol.deadline import HEADER, read_deadline
from ponder.protocol.errors import ApiError
from ponder.protocol.fields import MOST_MILLISECONDS, PonderOptions

numbers = st.integers(1, MOST_MILLISECONDS)


@given(numbers)
def test_header_and_body_say_the_same(number: int) -> None:
    assert read_deadline({}, number) == number
    assert read_deadline({HEADER: str(number)}, None) == number
    assert read_deadline({HEADER: f" {number} "}, number) == number
    assert read_deadline({}, None) is None


@given(numbers, numbers)
def test_two_that_disagree_are_an_error(one: int, other: int) -> None:
    if one != other:
        with pytest.raises(ApiError, match="send one of them") as caught:
            read_deadline({HEADER: str(one)}, other)
        assert (caught.value.status, caught.value.field) == (400, "deadline_ms")


@pytest.mark.parametrize(
    "said", ["", "0", "-5", "1.5", "1e3", "abc", "٣", "²", "86400001", "9" * 5000, "5ms", "None"]
)
def test_a_header_that_is_no_number_of_milliseconds_is_an_error(said: str) -> None:
    with pytest.raises(ApiError, match="must be a whole number of milliseconds") as caught:
        read_deadline({HEADER: said}, None)
    assert (caught.value.status, caught.value.param) == (400, HEADER)


@pytest.mark.parametrize("said", [0, -1, 1.5, True, "100", MOST_MILLISECONDS + 1, [1]])
def test_so_is_a_field(said: object) -> None:
    with pytest.raises(ValidationError):
        PonderOptions.model_validate({"deadline_ms": said})


@pytest.mark.parametrize(("said", "number"), [(100, 100), (100.0, 100), (None, None)])
def test_whole_numbers_of_any_kind_are_taken(said: object, number: int | None) -> None:
    assert PonderOptions.model_validate({"deadline_ms": said}).deadline_ms == number
