"""`POST /v1/completions`, as OpenAI's: prompts as they are, without a chat template."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PlainValidator, StrictBool, model_validator

from ponder.protocol.body import read_body
from ponder.protocol.budget import read_ask
from ponder.protocol.chat import NAMES, ChatRequest, Raw
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
from ponder.protocol.errors import ApiError, ErrorResponse, invalid_request
from ponder.protocol.fields import (
    Alternatives,
    Choices,
    Empty,
    Name,
    NoEntries,
    PonderOptions,
    SamplingFields,
    Strict,
    TokenId,
    Tokens,
    or_say,
)
from ponder.protocol.functions import ResponseFormat, StructuredOutputs
from ponder.protocol.logprobs import NOTHING, Columns, TextLogprobWriter, written
from ponder.protocol.noise import Noise
from ponder.protocol.response import (
    FinishReason,
    InterimReport,
    PonderReport,
    TokenCounts,
    Usage,
)
from ponder.protocol.spellings import BudgetFields
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import InterimAnswer, ThoughtDelta
from ponder.thought.thought import Event

MOST_PROMPTS = 1024
PLAIN_TOKENS = 16
"""Default `max_tokens` of a prompt that opens no thought; others have the context, as chats do."""

_NO_SUFFIX = or_say("this server does not fill in the middle; leave it out")
_NO_EMBEDDINGS = or_say("this server reads texts and token ids; send one of them as prompt")
_NO_TEMPLATE = or_say(
    "a raw prompt has no chat template; leave it out, and send a budget as thinking_token_budget, "
    "0 for no thought"
)


def _prompts(given: Any) -> list[str | list[int]]:
    """A list of prompts, from one prompt or several, each a text or token ids."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(type(entry) is int for entry in given):
            given = [given]
        kinds = {type(entry) for entry in given}
        ids = [entry for entry in given if type(entry) is list]
        if kinds == {str} or (kinds == {list} and all(_are_ids(entry) for entry in ids)):
            if len(given) > MOST_PROMPTS:
                raise ValueError(f"takes at most {MOST_PROMPTS} prompts: send fewer")
            return list(given)
    raise ValueError(
        "must be a text, a list of texts, a list of token ids, or a list of such lists; none is "
        "empty"
    )


def _are_ids(given: list[Any]) -> bool:
    return bool(given) and all(type(entry) is int and 0 <= entry < 2**31 for entry in given)


_Ids = Annotated[list[TokenId], Field(min_length=1)]
_Some = Field(min_length=1, max_length=MOST_PROMPTS)
Prompts = Annotated[
    list[str | list[int]],
    PlainValidator(
        _prompts,
        json_schema_input_type=str
        | Annotated[list[str], _Some]
        | _Ids
        | Annotated[list[_Ids], _Some],
    ),
]


class CompletionOptions(PonderOptions):
    """Ponder's options; `thinking` "open" says that the prompts end inside a thought."""

    thinking: Literal["open"] | None = None


class _Question(Strict):
    model: Name | None = None
    prompt: Prompts


class CompletionRequest(Noise, SamplingFields, BudgetFields, _Question):
    """The body."""

    ponder: CompletionOptions = Field(default_factory=CompletionOptions)
    max_tokens: Tokens | None = None
    logprobs: Alternatives | None = None
    add_special_tokens: StrictBool = True
    echo: StrictBool = False
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    prompt_embeds: Annotated[Empty | None, _NO_EMBEDDINGS] = None
    suffix: Annotated[Literal[""] | None, _NO_SUFFIX] = None
    best_of: Choices | None = None
    chat_template_kwargs: Annotated[NoEntries | None, _NO_TEMPLATE] = None
    user: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if self.best_of not in (None, self.n):
            raise ValueError(
                f"best_of {self.best_of} is not n {self.n}: this server ranks no choices; leave it "
                f"out"
            )
        if self.structured_outputs is not None and self.response_format is not None:
            raise ValueError("structured_outputs and response_format are two rules: send one")
        limit = self.max_tokens
        self.check_least("max_tokens", PLAIN_TOKENS if limit is None else limit, self.ponder)
        return self

    def neutral(self, headers: Mapping[str, str]) -> ChatRequest:
        """The neutral request. Raises `ApiError` for an invalid budget or limit.

        An engine samples one token at the least, also where the prompt is only scored.
        """
        if self.max_tokens == 0 and not self.echo:
            raise invalid_request(
                "max_tokens must be at least 1, not 0: raise it, or send echo: true to score the "
                "prompt alone",
                "max_tokens",
            )
        opened = self.ponder.thinking == "open"
        form = self.structured_outputs or self.response_format
        return ChatRequest(
            id=f"cmpl-{uuid.uuid4().hex}",
            prompts=[
                Raw(prompt, opened, PLAIN_TOKENS, self.add_special_tokens) for prompt in self.prompt
            ],
            model=self.model,
            ask=read_ask(self, 1 if self.max_tokens == 0 else self.max_tokens),
            ponder=self.ponder,
            sampling=self.sampling,
            rules=self.rules,
            grammar=None if form is None else form.grammar,
            spelled={} if self.structured_outputs is None else {"format": "structured_outputs"},
            n=self.n,
            logprobs=self.logprobs,
            echo=self.echo,
            scores_only=self.max_tokens == 0,
            shows_thought=self.shows_reasoning,
            stream=self.stream,
            shows_interim=True,
            usage=self.tells_usage,
            conversation=read_conversation(headers, self.ponder.scope, self.user),
            label=self.label,
        )


class TextLogprobs(BaseModel):
    """Log probabilities of the sampled answer tokens, in parallel lists.

    `text_offset` is where a token begins in `text`, in characters. `top_logprobs` holds the
    sampled token and the best ones; of tokens with the same text, the best. With `echo` the
    prompt's tokens come first; the very first follows nothing and has no log probability.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(BaseModel):
    """Choice `prompt * n + j` is the j-th of its prompt. `text` is the answer without the thought;
    with `echo` the prompt precedes it.
    """

    index: int
    text: str
    reasoning: str | None = None
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason
    ponder: PonderReport


class TextCompletion(BaseModel):
    """`usage.prompt_tokens` is the sum over the prompts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class TextChunkChoice(BaseModel):
    """`finish_reason` and `ponder` come in a choice's last chunk."""

    index: int
    text: str
    reasoning: str | None = None
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None
    ponder: PonderReport | None = None


class TextChunk(BaseModel):
    """One server-sent event. An interim answer comes in `ponder`, without choices."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChunkChoice]
    usage: Usage | TokenCounts | None = None
    ponder: InterimReport | None = None


@dataclass(frozen=True, slots=True)
class Echo:
    text: str = ""
    columns: Columns = NOTHING


class WholeText(Whole):
    """One `TextCompletion`."""

    kind = "text_completion"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._lists = _lists(reply)
        self._columns = [tuple(bytearray() for _ in range(4)) for _ in self._lists]

    def tell_logprobs(self, index: int, answer: AnswerDelta) -> None:
        if self._lists and answer.logprobs:
            self._tell(index, self._lists[index].columns(answer))

    def _tell(self, index: int, entries: Columns) -> None:
        for column, said in zip(self._columns[index], entries, strict=True):
            column.extend(f",{said}".encode() if column else said.encode())

    def choice(self, index: int, finish: str, report: str) -> Parts:
        echo = _echo(self.reply, self._lists, index)
        columns: Sequence[Sequence[bytes | bytearray]] = ()
        if self._lists:
            said = [entry.encode() for entry in echo.columns]
            columns = [
                [before, b"," if before and column else b"", column]
                for before, column in zip(said, self._columns[index], strict=True)
            ]
        return [
            f'{{"index":{index},"text":"'.encode(),
            inside(echo.text),
            self.texts[index],
            b'","reasoning":',
            *self.thought(index),
            b',"logprobs":',
            *(written(columns) if self._lists else [b"null"]),
            f',"finish_reason":{finish},"ponder":{report}}}'.encode(),
        ]


class StreamedText(Stream):
    """Writes each event as a `TextChunk`. An echo comes first."""

    kind = "text_completion"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._lists = _lists(reply)
        self._echoed = [not reply.request.echo] * reply.request.choices

    def event(self, index: int, event: Event) -> bytes:
        echo = self._echo(index)
        if isinstance(event, AnswerDelta):
            columns = self._lists[index].columns(event) if self._lists else ()
            return echo + self._text(index, event.text, columns)
        if isinstance(event, ThoughtDelta) and self.shows_thought:
            said = f'"text": "", "reasoning": {to_json(event.text)}'
            return echo + self.chunk(index, said)
        return echo + self.interim(index, event) if isinstance(event, InterimAnswer) else echo

    def closing(self) -> bytes:
        echoes = [self._echo(index) for index in range(len(self._echoed))]
        return b"".join([*echoes, super().closing()])

    def _echo(self, index: int) -> bytes:
        if self._echoed[index]:
            return b""
        self._echoed[index] = True
        echo = _echo(self.reply, self._lists, index)
        return self._text(index, echo.text, echo.columns if self._lists else ())

    def _text(self, index: int, text: str, columns: Sequence[str]) -> bytes:
        logprobs = "null"
        if columns:
            logprobs = b"".join(written([[column.encode()] for column in columns])).decode()
        return self.chunk(index, f'"text": {to_json(text)}', logprobs)

    def ending(self, report: str) -> str:
        return '"text": ""'


def _lists(reply: Reply) -> list[TextLogprobWriter]:
    """A writer for each choice; none where no log probabilities were asked for."""
    request = reply.request
    if request.logprobs is None:
        return []
    echoed = (len(reply.echo(index)) for index in range(request.choices))
    return [TextLogprobWriter(reply.token_texts, request.logprobs, size) for size in echoed]


def _echo(reply: Reply, lists: Sequence[TextLogprobWriter], index: int) -> Echo:
    """The echo of a choice's prompt; empty where none was asked for."""
    if not reply.request.echo:
        return Echo()
    columns = lists[index].prompt(*reply.scored(index)) if lists else NOTHING
    return Echo(reply.echo(index), columns)


class Completions:
    """Prompts in, texts out."""

    name = "completions"
    summary = "Continue prompts as they are; one that opens a thought thinks within a budget."
    request = CompletionRequest
    response = TextCompletion
    chunk = TextChunk
    failure = ErrorResponse
    done = "[DONE]"
    id_headers = ID_HEADERS
    fields: Mapping[str, str] = {
        **NAMES,
        "thinking": "ponder.thinking",
        "max_completion_tokens": "max_tokens",
        "alternatives": "logprobs",
    }

    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        return read_body(CompletionRequest, body).neutral(headers)

    def whole(self, reply: Reply) -> WholeText:
        return WholeText(reply)

    def stream(self, reply: Reply) -> StreamedText:
        return StreamedText(reply)

    def error(self, error: ApiError, request_id: str) -> Refusal:
        return refusal(error)
