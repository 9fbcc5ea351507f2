"""Ponder's own small parser of calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.hermes import BEGIN, END, Hermes, HermesParser
from ponder.engine.protocol import Tool


def parsed(pieces: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """The text, and each call's name and arguments."""
    parser, text, calls = HermesParser(), "", list[list[str]]()
    for at, piece in enumerate(pieces):
        said, parts = parser.feed(piece, (), last=at == len(pieces) - 1)
        text += said
        for part in parts:
            if part.name is not None:
                assert part.id and part.index == len(calls)
                calls.append([part.name, ""])
            calls[part.index][1] += part.arguments
    return text, [(name, arguments) for name, arguments in calls]


def cut_at(text: str, places: Sequence[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([BEGIN, END]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
arguments = st.dictionaries(st.text(max_size=5), values, max_size=3).map(json.dumps)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "get weather", 'a"b']), arguments), max_size=3),
    st.lists(st.integers(0, 400), max_size=6),
    st.sampled_from(["\n", "", "  "]),
)
def test_calls_are_read_however_they_come(
    calls: list[tuple[str, str]], places: list[int], blank: str
) -> None:
    text = "Let me see.<tool"
    for name, given_ in calls:
        call = f'{{"name": {json.dumps(name)}, "arguments": {given_}}}'
        text += f"{BEGIN}{blank}{call}{blank}{END}{blank}"
    said, found = parsed(cut_at(text, places))
    assert said == "Let me see.<tool" + blank * len(calls)
    assert found == calls


@given(st.integers(0, 80), st.lists(st.integers(0, 80), max_size=4))
def test_a_call_that_is_cut_is_told_as_far_as_it_came(size: int, places: list[int]) -> None:
    whole = f'{BEGIN}\n{{"name": "add", "arguments": {{"text": "a}} b", "n": 1}}}}\n{END}'
    _, found = parsed(cut_at(whole[:size], places))
    told = [arguments for _, arguments in found]
    assert all('{"text": "a} b", "n": 1}'.startswith(arguments) for arguments in told)
    assert len(told) == (size >= whole.index(' {"text'))


@given(
    st.sampled_from(['"id": "call_1"', '"more": {"a": "}}"}', '"n": 1']),
    arguments,
    st.lists(st.integers(0, 120), max_size=8),
)
def test_what_follows_the_arguments_is_none_of_them(
    more: str, given_: str, places: list[int]
) -> None:
    text = f'{BEGIN}\n{{"name": "add", "arguments": {given_}, {more}}}\n{END}'
    assert parsed(cut_at(text, places))[1] == [("add", given_)]


@pytest.mark.parametrize("name", ["get\\_weather", "get\nweather"])
def test_a_name_that_json_does_not_know_is_taken_as_it_is_written(name: str) -> None:
    text = f'{BEGIN}\n{{"name": "{name}", "arguments": {{}}}}\n{END}'
    assert parsed([text]) == ("", [(name, "{}")])


def test_arguments_that_nest_too_deeply_end_with_their_call() -> None:
    deep = "[" * 5000 + "]" * 5000
    text = f'{BEGIN}\n{{"name": "add", "arguments": {{"a": {deep}}}}}\n{END}'
    ((name, arguments_),) = parsed(list(text))[1]
    assert name == "add" and deep in arguments_


@pytest.mark.parametrize("text", [f"{BEGIN}no call{END}", f"{BEGIN}{{}}{END}", BEGIN, "<tool_"])
def test_what_is_no_call_is_none(text: str) -> None:
    assert parsed([text])[1] == []


@pytest.mark.parametrize(("strict", "required", "held"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_a_grammar_holds_what_is_asked_for(strict: Any, required: Any, held: Any) -> None:
    tools = [Tool(name="add", strict=bool(strict))]
    grammar = Hermes().grammar(tools, required=bool(required), several=True)
    assert (grammar is not None) == held
