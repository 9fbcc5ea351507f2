"""`POST /v1/messages`, as Anthropic's, and the count of its prompts' tokens."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import from_json

from ponder.engine.protocol import Grammar, Tool
from ponder.protocol.body import read_body
from ponder.protocol.budget import read_ask
from ponder.protocol.chat import NAMES, ChatRequest, ToolUse, Turns
from ponder.protocol.conversation import read_conversation
from ponder.protocol.dialect import Refusal, Reply
from ponder.protocol.dialects.messages_reply import MessagesAsk, StreamedMessage, WholeMessage
from ponder.protocol.dialects.messages_shapes import (
    AnthropicError,
    AnthropicMessage,
    InputTokens,
    MessageEvent,
    refusal,
)
from ponder.protocol.dialects.messages_turns import Messages, Texts, turns
from ponder.protocol.errors import ApiError
from ponder.protocol.fields import (
    Empty,
    Name,
    NoEntries,
    PositiveTokens,
    Salt,
    Seed,
    Stop,
    Strict,
    Temperature,
    TopK,
    TopP,
    or_say,
)
from ponder.protocol.functions import MOST_TOOLS
from ponder.protocol.grammars import json_schema
from ponder.protocol.noise import MessagesNoise, VllmNoise
from ponder.protocol.sampling import SamplingAsk
from ponder.protocol.spellings import BudgetFields, Thinking
from ponder.protocol.tools import tool_use
from ponder.thought.budget import EFFORT_TOKENS, Ask
from ponder.thought.segment import AnswerRules

MOST_STOPS = 16
MOST_USER_ID = 2048  # characters
SESSION = "x-claude-code-session-id"

_NO_SERVER_TOOLS = or_say(
    "this server runs no tools of its own, and an answer without them would make up what they "
    "find; leave it out, or send a tool that the client runs: name, description and input_schema"
)
_NO_CONTAINER = or_say("this server runs no code; leave it out")
_NO_TEMPLATE = or_say(
    "this endpoint's own field is thinking; leave it out, and send thinking of type disabled, or "
    "of type enabled with budget_tokens"
)
_NO_COMPACTION = or_say("this server writes no summaries of conversations; leave it out")
_KEEPS_NOTHING = or_say(
    "this server keeps nothing between requests; leave it out and send the whole conversation"
)
_NO_MCP = or_say("this server calls no MCP servers; leave it out, and send their tools")


class MessagesThinking(Strict):
    """Anthropic's field; with `display` "omitted", only the signature holds the thought."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Any = None
    display: Literal["summarized", "omitted"] | None = None

    @model_validator(mode="after")
    def _a_number_where_it_counts(self) -> MessagesThinking:
        if self.type == "enabled" and self.budget_tokens is None:
            raise ValueError("type enabled needs budget_tokens: add it, or send type adaptive")
        if self.type != "enabled" and self.budget_tokens is not None:
            raise ValueError(
                f"type {self.type} takes no budget_tokens: leave it out, or send type enabled"
            )
        return self

    @property
    def asked(self) -> Thinking | None:
        """The field in the form of chats; None leaves the budget to the effort or the server."""
        if self.type == "adaptive":
            return None
        if self.type == "enabled":
            return Thinking(budget_tokens=self.budget_tokens)
        return Thinking(type="disabled")


class ToolParam(Strict):
    """A function that the client runs. Other fields change nothing, and are not read."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Literal["custom"] | None, _NO_SERVER_TOOLS] = None
    name: Annotated[Name, Field(min_length=1)]
    description: str | None = None
    input_schema: dict[str, Any]
    strict: StrictBool = False


class MessagesToolChoice(Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: StrictBool = False

    @model_validator(mode="after")
    def _named(self) -> MessagesToolChoice:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("type tool needs a name, and the other types take none")
        return self


class JsonFormat(Strict):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class Metadata(Strict):
    model_config = ConfigDict(extra="ignore")

    user_id: Annotated[str, Field(max_length=MOST_USER_ID)] | None = None
    task: Any = None

    @property
    def label(self) -> str | None:
        """The task that the metadata names; Anthropic's metadata may hold anything."""
        return self.task if isinstance(self.task, str) else None


class _Question(Strict):
    """The fields whose mistakes are reported first: pydantic checks fields in their order."""

    model: Name | None = None
    max_tokens: PositiveTokens | None = None
    messages: Messages


class CountTokensRequest(MessagesNoise, VllmNoise, BudgetFields, _Question):
    """The body of `/v1/messages/count_tokens`: as of `/v1/messages`, with `max_tokens` optional."""

    system: Texts = Field(default_factory=list)
    thinking: MessagesThinking | None = None  # type: ignore[assignment]
    output_config: OutputConfig = Field(default_factory=OutputConfig)
    tools: Annotated[list[ToolParam], Field(max_length=MOST_TOOLS, fail_fast=True)] = Field(
        default_factory=list
    )
    tool_choice: MessagesToolChoice | None = None
    stop_sequences: Annotated[
        list[Annotated[Stop, Field(min_length=1)]], Field(max_length=MOST_STOPS, fail_fast=True)
    ] = Field(default_factory=list)
    stream: StrictBool = False
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    seed: Seed | None = None
    metadata: Metadata = Field(default_factory=Metadata)
    cache_salt: Salt | None = None
    chat_template_kwargs: Annotated[NoEntries | None, _NO_TEMPLATE] = None
    compaction: Annotated[None, _NO_COMPACTION] = None
    container: Annotated[None, _NO_CONTAINER] = None
    mcp_servers: Annotated[Empty | None, _NO_MCP] = None
    thread: Annotated[None, _KEEPS_NOTHING] = None

    @model_validator(mode="after")
    def _begins_the_answer(self) -> CountTokensRequest:
        if self.messages[-1].role == "assistant":
            raise ValueError(
                "messages must not end with the assistant's: this server begins every answer "
                "itself; leave the last one out"
            )
        return self

    def neutral(self, headers: Mapping[str, str]) -> ChatRequest:
        """The neutral request. Raises `ApiError` for an invalid budget and contradicting tools."""
        ask = self._ask()
        return MessagesAsk(
            id=f"msg_{uuid.uuid4().hex}",
            prompts=(Turns(turns(self.system, self.messages)),),
            model=self.model,
            ask=ask,
            ponder=self.ponder,
            sampling=SamplingAsk(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                seed=self.seed,
                cache_salt=self.cache_salt,
            ),
            rules=AnswerRules(stop=tuple(self.stop_sequences)),
            tools=self._tools(),
            grammar=self._grammar(),
            shows_thought=self.shows_reasoning and ask.budget != 0,
            omits_thought=self.thinking is not None and self.thinking.display == "omitted",
            stream=self.stream,
            conversation=read_conversation(headers, self.ponder.scope, self._session(headers)),
            label=self.metadata.label,
        )

    def _ask(self) -> Ask:
        """The budget. A request that does not mention a thought gets none, only an answer.

        An adaptive thought has the effort's tokens; a model that does not think answers without it.
        """
        thinking, effort = self.thinking, self.output_config.effort
        asked = None if thinking is None else thinking.asked
        ask = read_ask(self.model_copy(update={"thinking": asked}), self.max_tokens)
        if None not in (effort, ask.effort) and effort != ask.effort:
            raise ApiError(
                400,
                "conflicting_budgets",
                f"output_config.effort {effort} and another effort, {ask.effort}, disagree: send "
                f"one of them",
                param="output_config.effort",
            )
        if ask.budget is not None or ask.thinks:
            return ask
        if thinking is None:
            return replace(ask, budget=0, insists=False)
        if effort is None:
            return replace(ask, insists=False)
        tokens = EFFORT_TOKENS[effort]
        return replace(ask, budget=tokens, source="effort", effort=effort, insists=False)

    def _tools(self) -> ToolUse | None:
        given = self.tool_choice or MessagesToolChoice(type="auto")
        tools = [
            Tool(
                name=tool.name,
                description=tool.description,
                parameters=tool.input_schema,
                strict=tool.strict,
            )
            for tool in self.tools
        ]
        return tool_use(
            tools,
            _CHOICES[given.type],
            named=None if given.name is None else [given.name],
            parallel=not given.disable_parallel_tool_use,
        )

    def _grammar(self) -> Grammar | None:
        form = self.output_config.format
        return None if form is None else json_schema(form.schema_)

    def _session(self, headers: Mapping[str, str]) -> str | None:
        """The session of Claude Code, else the user."""
        user = self.metadata.user_id
        try:
            told = from_json(user or "")
        except ValueError:
            told = None
        session = told.get("session_id") if isinstance(told, dict) else None
        return headers.get(SESSION) or (session if isinstance(session, str) else None) or user


_CHOICES: Mapping[str, Literal["auto", "none", "required", "named"]] = {
    "auto": "auto",
    "any": "required",
    "tool": "named",
    "none": "none",
}


class MessagesRequest(CountTokensRequest):
    """The body."""

    max_tokens: PositiveTokens


class AnthropicMessages:
    """Anthropic's Messages API: reads turns, writes messages."""

    name = "messages"
    summary = "Think within a budget, then answer, as Anthropic's Messages API does."
    request = MessagesRequest
    response = AnthropicMessage
    chunk = MessageEvent
    failure = AnthropicError
    done = None
    id_headers = ("x-request-id", "request-id")
    fields: Mapping[str, str] = {
        **NAMES,
        "prompt": "messages",
        "max_completion_tokens": "max_tokens",
        "format": "output_config.format",
    }

    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        return read_body(MessagesRequest, body).neutral(headers)

    def whole(self, reply: Reply) -> WholeMessage:
        return WholeMessage(reply)

    def stream(self, reply: Reply) -> StreamedMessage:
        return StreamedMessage(reply)

    def error(self, error: ApiError, request_id: str) -> Refusal:
        return refusal(error, request_id)


class CountTokens:
    """Reads turns, writes the number of their tokens."""

    name = "count_tokens"
    summary = "Count the tokens of a message's prompt."
    request = CountTokensRequest
    response = InputTokens
    fields = AnthropicMessages.fields

    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        return read_body(CountTokensRequest, body).neutral(headers)

    def counted(self, tokens: int) -> BaseModel:
        return InputTokens(input_tokens=tokens)
