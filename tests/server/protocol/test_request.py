"""What a body may hold: null is not given, and what is not there yet says so with its remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from ponder.protocol.errors import to_api_error
from ponder.protocol.request import ChatCompletionRequest, PonderOptions

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


TOOLS = "this server does not call tools yet; leave it out"
GRAMMAR = "does not hold answers to a JSON grammar yet; leave it out and ask for JSON"
TEXT_ONLY = "reads text only, no images, audio or files; send parts of type text"
FUNCTION = {"name": "add", "parameters": {}}


def said_with(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "See:"}, part]}]}


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tools": [{"type": "function", "function": FUNCTION}]}, "tools", TOOLS),
        ({"tool_choice": "required"}, "tool_choice", TOOLS),
        ({"tool_choice": {"type": "function", "function": FUNCTION}}, "tool_choice", TOOLS),
        ({"functions": [FUNCTION]}, "functions", TOOLS),
        ({"function_call": {"name": "add"}}, "function_call", TOOLS),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages.0.tool_calls",
            TOOLS,
        ),
        ({"messages": [{"role": "tool", "content": "3"}]}, "messages.0.role", "none of tools yet"),
        ({"response_format": {"type": "json_object"}}, "response_format", GRAMMAR),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
            "response_format",
            GRAMMAR,
        ),
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
    assert message.startswith(f"{param}: " if param else "min_tokens")


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
