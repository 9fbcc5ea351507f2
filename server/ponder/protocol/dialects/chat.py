"""`POST /v1/chat/completions`, as OpenAI's."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from operator import itemgetter
from typing import Annotated, Any, Literal

from pydantic import StrictBool, model_validator

from ponder.engine.protocol import CallPart
from ponder.protocol.body import read_body
from ponder.protocol.budget import read_ask
from ponder.protocol.chat import NAMES, ChatRequest, Turns
from ponder.protocol.conversation import read_conversation
from ponder.protocol.dialect import Refusal, Reply
from ponder.protocol.dialects.openai import (
    ID_HEADERS,
    Parts,
    Stream,
    Whole,
    inside,
    refusal,
    to_json,
)
from ponder.protocol.errors import ApiError, ErrorResponse
from ponder.protocol.fields import (
    MOST_METADATA,
    NO_AUDIO,
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
from ponder.protocol.functions import (
    NO_FUNCTIONS,
    RENAMED,
    Choice,
    ResponseFormat,
    StructuredOutputs,
    Tools,
    read_tools,
)
from ponder.protocol.logprobs import LogprobWriter
from ponder.protocol.messages import Conversation, turns
from ponder.protocol.noise import Noise, One
from ponder.protocol.response import ChatCompletion, ChatCompletionChunk
from ponder.protocol.spellings import BudgetFields
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Ask
from ponder.thought.outcome import InterimAnswer, ThoughtDelta
from ponder.thought.thought import Event

_NO_ECHO = or_say("this server never repeats a message; leave it out")
_NO_RANKS = or_say("this server ranks no choices: ask for n; leave it out")
_NO_SPECIALS = or_say("the chat template writes the special tokens; leave it out")


class _Question(Strict):
    """The fields whose mistakes are reported first: pydantic checks fields in their order."""

    model: Name | None = None
    messages: Conversation


class ChatCompletionRequest(Noise, SamplingFields, BudgetFields, _Question):
    """The body."""

    max_completion_tokens: PositiveTokens | None = None
    chat_template_kwargs: Annotated[dict[str, Any], at_most(MOST_METADATA)] | None = None
    tools: Tools | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: StrictBool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Alternatives | None = None

    user: Name | None = None
    guided_json: Annotated[None, RENAMED] = None
    guided_regex: Annotated[None, RENAMED] = None
    guided_choice: Annotated[None, RENAMED] = None
    guided_grammar: Annotated[None, RENAMED] = None
    functions: Annotated[Empty | None, NO_FUNCTIONS] = None
    function_call: Annotated[Literal["none", "auto"] | None, NO_FUNCTIONS] = None
    echo: Annotated[Off, _NO_ECHO] = None
    best_of: Annotated[One, _NO_RANKS] = None
    add_special_tokens: Annotated[Off, _NO_SPECIALS] = None
    audio: Annotated[None, NO_AUDIO] = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatCompletionRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        self.check_least(*self.limit, self.ponder)
        if self.structured_outputs is not None and self.response_format is not None:
            raise ValueError("structured_outputs and response_format are two rules: send one")
        switch = (self.chat_template_kwargs or {}).get("enable_thinking")
        if switch is not None and not isinstance(switch, bool):
            raise ValueError("chat_template_kwargs.enable_thinking must be true or false")
        return self

    @property
    def limit(self) -> tuple[str, int | None]:
        """The name and value of the limit, which has two names: the smaller value is the bound."""
        names = ("max_completion_tokens", "max_tokens")
        given = [(name, value) for name in names if (value := getattr(self, name)) is not None]
        return min(given, key=itemgetter(1), default=(names[0], None))

    def ask(self) -> Ask:
        switch = (self.chat_template_kwargs or {}).get("enable_thinking")
        return read_ask(self, self.limit[1], switch)

    def neutral(self, headers: Mapping[str, str]) -> ChatRequest:
        """The neutral request. Raises `ApiError` for an invalid budget."""
        arguments = dict(self.chat_template_kwargs or {})
        arguments.pop("enable_thinking", None)  # it is read as a budget
        form = self.structured_outputs or self.response_format
        return ChatRequest(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            prompts=(Turns(turns(self.messages), arguments),),
            model=self.model,
            ask=self.ask(),
            ponder=self.ponder,
            sampling=self.sampling,
            rules=self.rules,
            tools=read_tools(self.tools, self.tool_choice, self.parallel_tool_calls),
            grammar=None if form is None else form.grammar,
            spelled={
                "max_completion_tokens": self.limit[0],
                **({} if self.structured_outputs is None else {"format": "structured_outputs"}),
            },
            n=self.n,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            shows_thought=self.shows_reasoning,
            stream=self.stream,
            shows_interim=True,
            usage=self.tells_usage,
            conversation=read_conversation(headers, self.ponder.scope, self.user),
            label=self.label,
        )


_CALLS = (b',"tool_calls":[', b",")


class WholeChat(Whole):
    """One `ChatCompletion`."""

    kind = "chat.completion"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._logprobs = LogprobWriter(reply.token_texts, reply.request.logprobs)
        self._entries = [bytearray() for _ in self.texts]
        self._calls: list[list[bytearray]] = [[] for _ in self.texts]

    def event(self, index: int, event: Event) -> None:
        if isinstance(event, CallPart):
            self._tell_call(index, event)
        else:
            super().event(index, event)

    def _tell_call(self, index: int, part: CallPart) -> None:
        calls = self._calls[index]
        if part.index == len(calls):
            head = f'{{"id":{to_json(part.id)},"type":"function","function":'
            calls.append(bytearray(f'{head}{{"name":{to_json(part.name)},"arguments":"'.encode()))
        calls[part.index] += inside(part.arguments)

    def tell_logprobs(self, index: int, answer: AnswerDelta) -> None:
        if answer.logprobs and (entries := self._logprobs.entries(answer.logprobs)):
            written = self._entries[index]
            written += f",{entries}".encode() if written else entries.encode()

    def choice(self, index: int, finish: str, report: str) -> Parts:
        thought = self.thought(index)
        before, _, after = self._logprobs.around("|").partition("|")
        calls, text = self._calls[index], self.texts[index]
        return [
            f'{{"index":{index},"message":{{"role":"assistant","content":'.encode(),
            *([b'"', text, b'"'] if text or not calls else [b"null"]),
            b',"reasoning":',
            *thought,
            b',"reasoning_content":',
            *thought,
            *(part for at, call in enumerate(calls) for part in (_CALLS[at > 0], call, b'"}}')),
            b"]" if calls else b"",
            f'}},"logprobs":{before}'.encode(),
            self._entries[index],
            f'{after},"finish_reason":{finish},"ponder":{report}}}'.encode(),
        ]


class StreamedChat(Stream):
    """Writes each event as a `ChatCompletionChunk`."""

    kind = "chat.completion.chunk"
    opening = '"delta": {"role": "assistant", "content": ""}'

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._logprobs = LogprobWriter(reply.token_texts, reply.request.logprobs)
        if reply.request.tools is not None:  # an answer that calls may have no content
            self.opening = '"delta": {"role": "assistant", "content": null}'

    def event(self, index: int, event: Event) -> bytes:
        if isinstance(event, AnswerDelta):
            logprobs = self._logprobs.around(self._logprobs.entries(event.logprobs))
            return self.chunk(index, f'"delta": {{"content": {to_json(event.text)}}}', logprobs)
        if isinstance(event, ThoughtDelta) and self.shows_thought:
            text = to_json(event.text)
            return self.chunk(
                index, f'"delta": {{"reasoning": {text}, "reasoning_content": {text}}}'
            )
        if isinstance(event, CallPart):
            return self.chunk(index, f'"delta": {{"tool_calls": [{_call(event)}]}}')
        return self.interim(index, event) if isinstance(event, InterimAnswer) else b""

    def ending(self, report: str) -> str:
        """The report once more: litellm drops a last chunk whose delta is empty."""
        return f'"delta": {{"provider_specific_fields": {{"ponder": {report}}}}}'


def _call(part: CallPart) -> str:
    begun, arguments = "", to_json(part.arguments)
    if part.id is not None:
        begun = f'"id": {to_json(part.id)}, "type": "function", '
    name = "" if part.name is None else f'"name": {to_json(part.name)}, '
    return f'{{"index": {part.index}, {begun}"function": {{{name}"arguments": {arguments}}}}}'


class ChatCompletions:
    """OpenAI's Chat Completions API: reads turns, writes messages."""

    name = "chat_completions"
    summary = "Think within a budget, then answer."
    request = ChatCompletionRequest
    response = ChatCompletion
    chunk = ChatCompletionChunk
    failure = ErrorResponse
    done = "[DONE]"
    id_headers = ID_HEADERS
    fields: Mapping[str, str] = {
        **NAMES,
        "prompt": "messages",
        "template_arguments": "chat_template_kwargs",
        "alternatives": "top_logprobs",
    }

    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        return read_body(ChatCompletionRequest, body).neutral(headers)

    def whole(self, reply: Reply) -> WholeChat:
        return WholeChat(reply)

    def stream(self, reply: Reply) -> StreamedChat:
        return StreamedChat(reply)

    def error(self, error: ApiError, request_id: str) -> Refusal:
        return refusal(error)
