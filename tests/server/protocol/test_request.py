"""What a body may hold: null is not given, and what is not there yet says so with its remedy."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ponder.protocol.body import _values, read_body
from ponder.protocol.chat import Turns
from ponder.protocol.dialects import DIALECTS
from ponder.protocol.dialects.chat import ChatCompletionRequest
from ponder.protocol.dialects.completions import CompletionRequest
from ponder.protocol.errors import ApiError, to_api_error
from ponder.protocol.fields import PonderOptions
from ponder.protocol.messages import turns

HELLO = [{"role": "user", "content": "Hello"}]


def request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate_json(json.dumps({"messages": HELLO, **fields}))


def refused(**fields: Any) -> tuple[str | None, str]:
    """The field at fault and the message."""
    with pytest.raises(ValidationError) as caught:
        request(**fields)
    error = to_api_error(caught.value)
    assert error is not None and error.code == "invalid_request"
    return error.param, str(error)


@pytest.mark.parametrize("name", sorted(ChatCompletionRequest.model_fields.keys() - {"messages"}))
def test_null_is_not_given(name: str) -> None:
    assert request(**{name: None}) == request()


@pytest.mark.parametrize("name", sorted(PonderOptions.model_fields))
def test_null_is_not_given_to_ponder(name: str) -> None:
    assert request(ponder={name: None}) == request(ponder={})


def test_null_is_not_given_in_other_objects() -> None:
    options = request(stream=True, stream_options={"include_usage": None}).stream_options
    assert options is not None and options.include_usage is False
    assert refused(messages=None) == ("messages", "messages is required: add it")
    assert refused(messages=[{"role": "user", "content": None}])[1].endswith("needs content")


def test_a_result_has_the_name_of_its_call() -> None:
    """OpenAI's tool messages hold no name, and templates that write one need it."""
    calls = [
        {"id": id_, "function": {"name": name, "arguments": "{}"}}
        for id_, name in (("a", "add"), ("b", "subtract"), ("", "unnamed"))
    ]
    results = [
        {"role": "tool", "content": "3", **more}
        for more in (
            {"tool_call_id": "b"},
            {"tool_call_id": "a"},
            {"tool_call_id": "a", "name": "own"},
            {"tool_call_id": "unknown"},
            {},
        )
    ]
    asked = request(messages=[*HELLO, {"role": "assistant", "tool_calls": calls}, *results])
    named = [turn.get("name") for turn in turns(asked.messages)[-5:]]
    assert named == ["subtract", "add", "own", None, None]


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}, {"content": []}])
def test_a_result_may_be_empty_in_every_dialect(content: dict[str, Any]) -> None:
    """A function that returns nothing has one."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "tool_calls": [call]}
    asked = request(messages=[*HELLO, said, {"role": "tool", "tool_call_id": "c", **content}])
    assert asked.messages[-1].turn({})["content"] == ""
    output = {} if not content else {"output": content["content"]}
    items = [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", **output},
    ]
    body = json.dumps({"input": [{"role": "user", "content": "hi"}, *items]}).encode()
    (turns,) = DIALECTS["/v1/responses"].read(body, {}).prompts
    assert isinstance(turns, Turns) and turns.turns[-1]["content"] == ""
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "c", **content}
    told = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    body = json.dumps({"max_tokens": 9, "messages": [*HELLO, *told]}).encode()
    (turns,) = DIALECTS["/v1/messages"].read(body, {}).prompts
    assert isinstance(turns, Turns) and turns.turns[-1]["content"] == ""


TEXT_ONLY = "reads text only, no images, audio or files; send parts of type text"
FUNCTION = {"name": "add", "parameters": {}}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
OLD = "this is OpenAI's old name; send tools, tool_choice and tool_calls"


def said_with(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "See:"}, part]}]}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tools": [{"type": "function"}]}, "tools.0.function", "is required"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "tools of type function alone"),
        ({"tools": [FUNCTION]}, "tools.0.function", "is required"),
        ({"tool_choice": "any"}, "tool_choice", "auto, none, required, or an object that names"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "an object that names"),
        ({"functions": [FUNCTION]}, "functions", OLD),
        ({"function_call": {"name": "add"}}, "function_call", OLD),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages.0.tool_calls.0.function",
            "is required",
        ),
        (
            {"messages": [{"role": "user", "content": "", "tool_calls": [CALL]}]},
            "messages.0",
            "a user message makes no tool_calls",
        ),
        (
            {"messages": [{"role": "function", "content": "3"}]},
            "messages.0.role",
            "system, developer, user, assistant and tool messages; send one of them",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs json_schema"),
        (
            said_with({"type": "image_url", "image_url": {"url": "data:"}}),
            "messages.0.content.1.type",
            TEXT_ONLY,
        ),
        (
            said_with({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}),
            "messages.0.content.1.type",
            TEXT_ONLY,
        ),
        (
            said_with({"type": "file", "file": {"file_id": "f"}}),
            "messages.0.content.1.type",
            TEXT_ONLY,
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages.0.content",
            "must be a string or a list of text parts",
        ),
        ({"modalities": ["text", "audio"]}, "modalities", "neither hears nor speaks"),
        ({"min_tokens": 9, "ponder": {"max_answer_tokens": 8}}, None, "max_answer_tokens 8: lower"),
    ],
)
def test_what_is_not_there_says_so_with_its_remedy(
    fields: dict[str, Any], param: str | None, says: str
) -> None:
    at, message = refused(**fields)
    assert at == param
    assert says in message
    assert message.startswith(param or "min_tokens")


def test_what_changes_nothing_is_accepted() -> None:
    given = request(
        tools=[], functions=[], tool_choice="none", function_call="auto", modalities=["text"]
    )
    assert given.tools == []
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert request(messages=[{"role": "user", "content": parts}]).messages[0].text == "Hello"
    silent = request(messages=[*HELLO, {"role": "assistant", "content": None}, *HELLO])
    assert [message.text for message in silent.messages] == ["Hello", "", "Hello"]
    assert request(min_tokens=8, ponder={"max_answer_tokens": 8}).min_tokens == 8


JUNK = [[], {}, "x", "", 1, -1, 1.5, True, [1], {"x": 1}, [[1]], 10**12, 1e300, ["x"] * 5000]
LIBRARY = re.compile(r"Input|input|valid |validation|dictionary|Field|type=|pydantic")


@pytest.mark.parametrize("name", sorted(CompletionRequest.model_fields.keys() - {"prompt"}))
def test_null_is_not_given_to_completions(name: str) -> None:
    body = {"prompt": "Once"}
    assert CompletionRequest.model_validate({**body, name: None}) == (
        CompletionRequest.model_validate(body)
    )


LEAST: dict[str, dict[str, Any]] = {
    "messages": {"messages": HELLO},
    "prompt": {"prompt": "Once"},
    "input": {"input": "Hello"},
}
"""What a body cannot do without, by the dialect's name for a prompt."""
OF_DIALECTS = [
    (dialect.request, name, LEAST[dialect.fields["prompt"]])
    for dialect in DIALECTS.values()
    for name in sorted(dialect.request.model_fields)
]


@pytest.mark.parametrize(("kind", "name", "body"), OF_DIALECTS)
def test_what_is_wrong_is_said_in_our_words(
    kind: type[BaseModel], name: str, body: dict[str, Any]
) -> None:
    for junk in JUNK:
        try:
            kind.model_validate_json(json.dumps({**body, name: junk}))
        except ValidationError as error:
            said = to_api_error(error)
            assert said is not None
            assert not LIBRARY.search(str(said).removeprefix(said.param or "")), said
            assert len(str(said)) < 300
            assert error.error_count() <= 4


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"messages": []}, "messages must not be empty: add an entry"),
        ({"temperature": 3}, "temperature must be at most 2, not 3"),
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"temperature": True}, "temperature must be a number, not true"),
        ({"top_p": "0.9"}, "top_p must be a number, not '0.9'"),
        ({"top_k": True}, "top_k must be a whole number, not true"),
        ({"seed": "7"}, "seed must be a whole number, not '7'"),
        ({"stop_token_ids": [True]}, "stop_token_ids.0 must be a whole number, not true"),
        ({"logit_bias": {"5": True}}, "logit_bias.5 must be a number, not true"),
        (
            {"logprobs": True, "top_logprobs": True},
            "top_logprobs must be a whole number, not true",
        ),
        ({"n": 0}, "n must be at least 1, not 0"),
        ({"n": 2.5}, "n must be a whole number, not 2.5"),
        ({"stream": 1}, "stream must be true or false, not 1"),
        ({"stop": ["a"] * 17}, "stop takes at most 16 entries: send fewer"),
        ({"user": "a" * 513}, "user takes at most 512 characters: shorten it"),
        ({"metadata": {"a": 1}}, "metadata.a must be a string, not 1"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a must be a whole number, not 'a'"),
        (
            {"thinking": {"type": "on"}},
            "thinking.type must be 'enabled', 'disabled', 'adaptive' or 'auto', not 'on'",
        ),
        ({"no_such": 1}, "no_such is not supported here: leave it out"),
    ],
)
def test_sentences(fields: dict[str, Any], says: str) -> None:
    assert refused(**fields)[1] == says


def test_validation_stops_at_the_first_mistake() -> None:
    for fields in ({"messages": [1] * 2000}, {f"x{n}": 1 for n in range(2000)}):
        with pytest.raises(ValidationError) as caught:
            request(**fields)
        assert caught.value.error_count() == 1


def test_a_body_is_an_object() -> None:
    for body in (b"[]", b"1", b'"x"', b"null"):
        with pytest.raises(ValidationError) as caught:
            read_body(ChatCompletionRequest, body)
        assert str(to_api_error(caught.value)).startswith("the body must be an object, not ")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_is_no_json_is_refused_wherever_it_stands(number: bytes) -> None:
    body = b'{"messages": [], "tools": [{"function": {"parameters": {"maximum": %b}}}]}' % number
    with pytest.raises(ApiError, match="the body is not JSON"):
        read_body(ChatCompletionRequest, body)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_fewer_values_are_counted_than_there_are(value: Any) -> None:
    def values(value: Any) -> int:
        inner = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        )
        return 1 + sum(map(values, inner))

    compact = json.dumps(value, ensure_ascii=False).encode()
    assert _values(compact) >= values(value)


def test_more_values_than_a_body_may_hold_are_not_read() -> None:
    for unit in (b"[],", b'"",', b"1,", b'{"a":1},'):
        with pytest.raises(ApiError, match="more than 131072 values"):
            read_body(ChatCompletionRequest, b'{"budget":[' + unit * 140_000 + b"0]}")
    text = json.dumps({"messages": [{"role": "user", "content": '[{"a\\": 1},' * 140_000}]})
    assert read_body(ChatCompletionRequest, text.encode()).messages[0].text.startswith("[{")
