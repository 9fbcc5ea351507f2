"""Every dialect of a budget becomes one ask, or one clear error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ponder.protocol.dialects.chat import ChatCompletionRequest
from ponder.protocol.errors import ApiError
from ponder.protocol.spellings import BUDGETS
from ponder.thought.budget import AUTO, EFFORT_TOKENS

SWITCH = "chat_template_kwargs.enable_thinking"
HELLO = [{"role": "user", "content": "Hello"}]

NUMBERS = {
    **{name: lambda value, name=name: {name: value} for name in BUDGETS},
    "thinking.budget_tokens": lambda value: {"thinking": {"budget_tokens": value}},
    "reasoning.max_tokens": lambda value: {"reasoning": {"max_tokens": value}},
    "nvext.max_thinking_tokens": lambda value: {"nvext": {"max_thinking_tokens": value}},
    "custom_params.thinking_budget": lambda value: {"custom_params": {"thinking_budget": value}},
    "google.thinking_config.thinking_budget": lambda value: {
        "google": {"thinking_config": {"thinking_budget": value}}
    },
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


def request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"messages": HELLO, **fields})


@given(name=st.sampled_from(sorted(NUMBERS)), value=anything)
def test_a_value_is_a_budget_or_a_named_error(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    is_budget = value == "auto" or (number and value == value // 1 and -1 <= value <= 2**64)
    try:
        ask = request(**NUMBERS[name](value)).ask()
    except ApiError as error:
        assert not is_budget and value is not None
        assert (error.status, error.code, error.param) == (400, "invalid_budget", name)
    else:
        assert ask.budget == (AUTO if value == "auto" else value)


@pytest.mark.parametrize("name", NUMBERS)
def test_auto_is_a_value_of_every_name_of_a_budget(name: str) -> None:
    ask = request(**NUMBERS[name]("auto")).ask()
    assert (ask.budget, ask.source, ask.spelled) == (AUTO, "auto", name)
    with pytest.raises(ApiError, match=f"{name} = auto") as caught:
        request(**NUMBERS[name]("auto"), enable_thinking=False).ask()
    assert caught.value.code == "conflicting_budgets"


EFFORTS: dict[str, dict[str, Any]] = {
    "reasoning_effort": {"reasoning_effort": "auto"},
    "reasoning.effort": {"reasoning": {"effort": "auto"}},
    "think": {"think": "auto"},
    "google.thinking_config.thinking_level": {
        "google": {"thinking_config": {"thinking_level": "auto"}}
    },
}


@pytest.mark.parametrize("name", EFFORTS)
def test_auto_is_an_effort_too(name: str) -> None:
    ask = request(**EFFORTS[name]).ask()
    assert (ask.budget, ask.source, ask.spelled) == (AUTO, "auto", name)


def test_a_budget_wins_over_an_effort_whichever_is_auto() -> None:
    number = request(**EFFORTS["reasoning_effort"], budget=7).ask()
    assert (number.budget, number.source) == (7, "request")
    auto = request(reasoning_effort="low", budget="auto").ask()
    assert (auto.budget, auto.source) == (AUTO, "auto")


@given(
    names=st.lists(st.sampled_from(sorted(NUMBERS)), min_size=2, max_size=4, unique=True),
    values=st.lists(st.integers(-1, 50), min_size=4, max_size=4),
)
def test_numbers_agree_or_conflict(names: list[str], values: list[int]) -> None:
    fields: dict[str, Any] = {}
    for name, value in zip(names, values, strict=False):
        fields.update(NUMBERS[name](value))
    used = set(values[: len(names)])
    if len(used) == 1:
        assert request(**fields).ask().budget == used.pop()
    else:
        with pytest.raises(ApiError) as caught:
            request(**fields).ask()
        assert caught.value.code == "conflicting_budgets"


@pytest.mark.parametrize("effort", EFFORT_TOKENS)
def test_efforts_are_tokens_and_a_number_wins(effort: str) -> None:
    ask = request(reasoning_effort=effort).ask()
    assert (ask.budget, ask.source) == (EFFORT_TOKENS[effort], "effort")
    assert request(reasoning={"effort": effort}).ask() == ask
    beside = request(reasoning_effort=effort, budget=7).ask()
    assert (beside.budget, beside.source) == (7, "request")


def test_an_unknown_effort_lists_the_known_ones() -> None:
    with pytest.raises(ApiError, match="minimal, low, medium"):
        request(reasoning_effort="enormous").ask()


def test_silence_is_no_budget() -> None:
    assert request().ask().budget is None


@pytest.mark.parametrize(
    "switch",
    [
        {"thinking": {"type": "enabled"}},
        {"reasoning": {"enabled": True}},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"enable_thinking": True},
    ],
)
def test_a_switch_asks_for_a_thought_and_for_no_number(switch: dict[str, Any]) -> None:
    ask = request(**switch).ask()
    assert (ask.budget, ask.thinks) == (None, True)
    assert request(**switch, budget=7).ask().budget == 7
    with pytest.raises(ApiError) as caught:
        request(**switch, reasoning_effort="none").ask()
    assert caught.value.code == "conflicting_budgets"


@pytest.mark.parametrize(
    "switch",
    [
        {"thinking": {"type": "disabled"}},
        {"reasoning": {"enabled": False}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"enable_thinking": False},
    ],
)
def test_a_switch_that_is_off_is_budget_zero(switch: dict[str, Any]) -> None:
    assert request(**switch).ask().budget == 0
    with pytest.raises(ApiError) as caught:
        request(**switch, budget=7).ask()
    assert caught.value.code == "conflicting_budgets"


def test_adaptive_leaves_the_budget_to_the_server() -> None:
    adaptive = {"type": "adaptive"}
    ask = request(thinking=adaptive).ask()
    assert (ask.budget, ask.thinks) == (None, False)
    assert request(thinking=adaptive, reasoning_effort="low").ask().source == "effort"
    with pytest.raises(ValidationError, match="leave budget_tokens out, or send type enabled"):
        request(thinking={**adaptive, "budget_tokens": 7})


@pytest.mark.parametrize(
    ("fields", "spelled"),
    [
        *((fields(7), name) for name, fields in NUMBERS.items()),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, SWITCH),
        ({"thinking": {"type": "enabled"}}, "thinking.type"),
        ({"reasoning": {"enabled": True}}, "reasoning.enabled"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"reasoning_effort": "low", "enable_thinking": True, "budget": 7}, "budget"),
        ({}, "thinking_token_budget"),
    ],
)
def test_an_ask_knows_what_the_client_called_it(fields: dict[str, Any], spelled: str) -> None:
    assert request(**fields).ask().spelled == spelled
