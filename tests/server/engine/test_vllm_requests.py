"""What vLLM's own request models have by default is taken, in every dialect."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsBase as BetaMessage
from anthropic.types.message_create_params import MessageCreateParamsBase as Message
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as Chat
from openai.types.completion_create_params import CompletionCreateParamsBase as Text
from openai.types.responses.response_create_params import ResponseCreateParamsBase as Response
from pydantic import BaseModel, ValidationError

from ponder.protocol.dialects import DIALECTS

HELLO = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Once"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 99},
}
VLLM = {
    "/v1/chat/completions": "openai.chat_completion.protocol:ChatCompletionRequest",
    "/v1/completions": "openai.completion.protocol:CompletionRequest",
    "/v1/responses": "openai.responses.protocol:ResponsesRequest",
    "/v1/messages": "anthropic.protocol:AnthropicMessagesRequest",
}
OFFICIAL: dict[str, tuple[type, ...]] = {
    "/v1/chat/completions": (Chat,),
    "/v1/completions": (Text,),
    "/v1/responses": (Response,),
    "/v1/messages": (Message, BetaMessage),
}
MEANING = {"allowed_token_ids", "max_tokens"}
"""Fields whose value asks for something: vLLM refuses an empty one, and 16 tokens are a limit."""


def nothings(kind: Any) -> Iterator[Any]:
    """The values of a type that ask for nothing, beside null."""
    for one in typing.get_args(kind) if is_union(kind) else (kind,):
        origin = typing.get_origin(one) or one
        if origin in (bool, list, dict):
            yield origin()


def is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def harmless(path: str) -> Iterator[tuple[str, Any]]:
    """Field and value: every default, and of fields that are null by default, nothing."""
    module, _, name = VLLM[path].partition(":")
    model: type[BaseModel] = getattr(import_module(f"vllm.entrypoints.{module}"), name)
    for name, field in model.model_fields.items():
        if field.is_required() or name in BODIES[path] or name in MEANING:
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        values = nothings(field.annotation) if default is None else [default]
        yield from ((name, value) for value in values)


@pytest.mark.parametrize("path", VLLM)
def test_values_that_ask_vllm_for_nothing_are_taken(path: str) -> None:
    read = DIALECTS[path].request.model_validate
    plain, refused, tried = read(BODIES[path]), {}, 0
    for name, value in harmless(path):
        tried += 1
        try:
            assert seen(read({**BODIES[path], name: value})) == seen(plain), (name, value)
        except ValidationError as error:
            refused[name, str(value)] = error.errors()[0]["msg"]
    assert refused == {}
    assert tried > 10


def seen(asked: Any) -> dict[str, Any]:
    """What of a request may change its answer."""
    neutral = asked.neutral({})
    names = ("prompts", "ask", "rules", "tools", "grammar", "n", "logprobs", "echo")
    sampling = neutral.sampling.over({}, logprobs=None, chunk_tokens=1)
    return {"sampling": sampling, **{name: getattr(neutral, name) for name in names}}


def test_the_options_of_a_structured_output_are_taken_as_vllm_has_them() -> None:
    from vllm.sampling_params import StructuredOutputsParams

    options = StructuredOutputsParams(regex="a+")
    given = {name: value for name, value in vars(options).items() if not name.startswith("_")}
    for path in ("/v1/chat/completions", "/v1/completions"):
        asked: Any = DIALECTS[path].request
        neutral = asked.model_validate({**BODIES[path], "structured_outputs": given}).neutral({})
        assert (neutral.grammar.kind, neutral.grammar.rule) == ("regex", "a+")


@pytest.mark.parametrize("path", OFFICIAL)
def test_every_field_of_the_official_client_is_known(path: str) -> None:
    """It is honoured, ignored, or refused in words that were written for it."""
    model = DIALECTS[path].request
    known = {field.alias or name for name, field in model.model_fields.items()}
    for params in OFFICIAL[path]:
        assert set(typing.get_type_hints(params)) <= known
