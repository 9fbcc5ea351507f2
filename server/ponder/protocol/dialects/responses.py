"""`POST /v1/responses`, as OpenAI's: reads and writes items, and keeps nothing between requests."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StrictBool, model_validator

from ponder.engine.protocol import Grammar
from ponder.protocol.body import read_body
from ponder.protocol.budget import read_ask
from ponder.protocol.chat import NAMES, ChatRequest, Turns
from ponder.protocol.conversation import read_conversation
from ponder.protocol.dialect import Refusal, Reply
from ponder.protocol.dialects.openai import ID_HEADERS, refusal
from ponder.protocol.dialects.responses_events import (
    ResponseEvent,
    ResponseObject,
    StreamedResponse,
    WholeResponse,
)
from ponder.protocol.dialects.responses_items import Items, Lenient, turns
from ponder.protocol.dialects.responses_output import ResponsesAsk
from ponder.protocol.dialects.responses_tools import CALLED, Choice, Tools, read_tools
from ponder.protocol.errors import ApiError, ErrorResponse
from ponder.protocol.fields import (
    MOST_METADATA,
    Alternatives,
    Empty,
    Name,
    Off,
    PositiveTokens,
    SamplingFields,
    Strict,
    at_most,
    or_say,
)
from ponder.protocol.grammars import json_object, json_schema
from ponder.protocol.noise import Noise, ResponsesNoise
from ponder.protocol.spellings import BudgetFields, Reasoning

SESSION = "session-id"
"""The header in which Codex names its conversation."""

_LOGPROBS = "message.output_text.logprobs"
_SEALED = "reasoning.encrypted_content"

_ONE = or_say("a response is one answer; send a request for each")
_LIMIT = or_say("a response's limit is called max_output_tokens here; send that")
_KEEPS_NOTHING = or_say(
    "this server keeps nothing between requests; leave it out and send the whole conversation"
)
_NO_PROMPTS = or_say("this server keeps no prompts; leave it out and send the text itself")
_WAITS = or_say("this server answers while its client waits; leave it out, or send stream: true")
_KEEPS_ALL = or_say(
    "this server drops nothing from a conversation; leave it out and shorten the conversation"
)
_NO_TOKENS = or_say("a response holds items alone, and /tokenize gives tokens; leave it out")
_NO_IMAGES = or_say("this server reads text only; leave it out")
_TEMPLATES_DECIDE = or_say(
    "the model's chat template decides which earlier thoughts it reads; leave it out"
)


class ResponseReasoning(Reasoning):
    """OpenAI's field. There are no summaries: thoughts are shown unchanged."""

    context: Annotated[Literal["auto"] | None, _TEMPLATES_DECIDE] = None
    mode: Literal["standard"] | None = None


class AnswerFormat(Lenient):
    """The format of an answer; `schema` is the schema of type `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: StrictBool | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("one of type json_schema needs schema: add it")
        return self

    @property
    def grammar(self) -> Grammar | None:
        if self.type == "json_schema":
            return json_schema(self.schema_ or {})
        return json_object() if self.type == "json_object" else None


class ResponseText(Strict):
    format: AnswerFormat = Field(default_factory=lambda: AnswerFormat(type="text"))
    verbosity: Literal["low", "medium", "high"] | None = None


class _Question(Strict):
    model: Name | None = None
    input: Items


class ResponsesRequest(ResponsesNoise, Noise, SamplingFields, BudgetFields, _Question):
    """The body."""

    instructions: str | None = None
    max_output_tokens: PositiveTokens | None = None
    reasoning: ResponseReasoning | None = None
    text: ResponseText = Field(default_factory=ResponseText)
    tools: Tools = Field(default_factory=list)
    tool_choice: Choice | None = None
    parallel_tool_calls: StrictBool = True
    include: Annotated[list[Name], Field(max_length=64, fail_fast=True)] = Field(
        default_factory=list
    )
    top_logprobs: Alternatives | None = None
    chat_template_kwargs: Annotated[dict[str, Any], at_most(MOST_METADATA)] | None = None

    n: Annotated[Literal[1], _ONE] = 1
    max_tokens: Annotated[None, _LIMIT] = None
    max_completion_tokens: Annotated[None, _LIMIT] = None
    previous_response_id: Annotated[None, _KEEPS_NOTHING] = None
    conversation: Annotated[None, _KEEPS_NOTHING] = None
    prompt: Annotated[None, _NO_PROMPTS] = None
    background: Annotated[Literal[False] | None, _WAITS] = None
    truncation: Annotated[Literal["disabled"] | None, _KEEPS_ALL] = None
    context_management: Annotated[Empty | None, _KEEPS_ALL] = None
    previous_input_messages: Annotated[Empty | None, _KEEPS_NOTHING] = None
    enable_response_messages: Annotated[Off, _NO_TOKENS] = None
    image: Annotated[None, _NO_IMAGES] = None

    user: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs and _LOGPROBS not in self.include:
            raise ValueError(f'top_logprobs needs include: ["{_LOGPROBS}"]')
        self.check_least("max_output_tokens", self.max_output_tokens, self.ponder)
        switch = (self.chat_template_kwargs or {}).get("enable_thinking")
        if switch is not None and not isinstance(switch, bool):
            raise ValueError("chat_template_kwargs.enable_thinking must be true or false")
        return self

    def neutral(self, headers: Mapping[str, str]) -> ResponsesAsk:
        """The neutral request. Raises `ApiError` for an invalid budget and uncallable tools."""
        arguments = dict(self.chat_template_kwargs or {})
        switch = arguments.pop("enable_thinking", None)  # it is read as a budget
        tools, callees = read_tools(self.tools, self.tool_choice, self.parallel_tool_calls)
        return ResponsesAsk(
            id=f"resp_{uuid.uuid4().hex}",
            prompts=(Turns(turns(self.instructions, self.input), arguments),),
            model=self.model,
            ask=read_ask(self, self.max_output_tokens, switch),
            ponder=self.ponder,
            sampling=self.sampling,
            rules=self.rules,
            tools=tools,
            grammar=self.text.format.grammar,
            logprobs=(self.top_logprobs or 0) if _LOGPROBS in self.include else None,
            shows_thought=self.shows_reasoning,
            stream=self.stream,
            conversation=self._conversation(headers),
            label=self.label,
            callees=callees,
            seals=_SEALED in self.include,
            repeated=self._repeated(),
        )

    def _conversation(self, headers: Mapping[str, str]) -> str | None:
        """The conversation as in chats, else by `prompt_cache_key`, else by Codex's header."""
        if said := read_conversation(headers, self.ponder.scope, self.user):
            return said
        if self.prompt_cache_key:
            return f"prompt_cache_key:{self.prompt_cache_key}"
        return f"{SESSION}:{headers[SESSION]}" if headers.get(SESSION) else None

    def _repeated(self) -> Mapping[str, Any]:
        """The fields of the request that the response repeats."""
        said = self.model_dump(mode="json", by_alias=True, exclude_unset=True, include=_REPEATED)
        effort = self.reasoning.effort if self.reasoning else None
        return {
            **dict.fromkeys(sorted(_REPEATED)),
            **said,
            "background": False,
            "metadata": said.get("metadata", {}),
            "parallel_tool_calls": self.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": effort or self.reasoning_effort, "summary": None},
            "store": False,
            "text": {"format": {"type": "text"}, **said.get("text", {})},
            "tool_choice": "auto" if self.tool_choice is None else self.tool_choice.said,
            "tools": [tool for tool in said.get("tools", ()) if tool["type"] in CALLED],
            "truncation": "disabled",
        }


_REPEATED = {
    *("instructions", "max_output_tokens", "max_tool_calls", "metadata", "prompt_cache_key"),
    *("safety_identifier", "temperature", "text", "tools", "top_logprobs", "top_p", "user"),
}


class Responses:
    """OpenAI's Responses API: reads items, writes items."""

    name = "responses"
    summary = "Think within a budget, then answer or call, in items."
    request = ResponsesRequest
    response = ResponseObject
    chunk = ResponseEvent
    failure = ErrorResponse
    done = None
    id_headers = ID_HEADERS
    fields: Mapping[str, str] = {
        **NAMES,
        "prompt": "input",
        "format": "text.format",
        "template_arguments": "chat_template_kwargs",
        "max_completion_tokens": "max_output_tokens",
        "alternatives": "top_logprobs",
    }

    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        return read_body(ResponsesRequest, body).neutral(headers)

    def whole(self, reply: Reply) -> WholeResponse:
        return WholeResponse(reply)

    def stream(self, reply: Reply) -> StreamedResponse:
        return StreamedResponse(reply)

    def error(self, error: ApiError, request_id: str) -> Refusal:
        return refusal(error)


class ResponseTokens(BaseModel):
    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class CountResponseTokens:
    """`POST /v1/responses/input_tokens`: counts the tokens of a response's input."""

    name = "response_input_tokens"
    summary = "Count the tokens of a response's input."
    request = ResponsesRequest
    response = ResponseTokens
    fields = Responses.fields

    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        return read_body(ResponsesRequest, body).neutral(headers)

    def counted(self, tokens: int) -> ResponseTokens:
        return ResponseTokens(input_tokens=tokens)
