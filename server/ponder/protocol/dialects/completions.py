"""`POST /v1/completions`, in OpenAI's words: prompts as they are, without a chat template."""

from __future__ import annotations

import codecs
import uuid
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PlainValidator, StrictBool, model_validator

from ponder.protocol.body import read_body
from ponder.protocol.budget import read_ask
from ponder.protocol.chat import NAMES, ChatRequest, Raw
from ponder.protocol.conversation import read_conversation
from ponder.protocol.dialect import Reply
from ponder.protocol.dialects.openai import Parts, Stream, Whole, error_body, to_json
from ponder.protocol.errors import ApiError, ErrorResponse
from ponder.protocol.fields import (
    Name,
    PonderOptions,
    SamplingFields,
    Strict,
    TokenId,
    or_say,
)
from ponder.protocol.logprobs import LEAST, TokenTexts
from ponder.protocol.noise import Noise
from ponder.protocol.response import FinishReason, PonderReport, TokenCounts, Usage
from ponder.protocol.spellings import BudgetFields
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import ThoughtDelta
from ponder.thought.thought import Event

MOST_PROMPTS = 1024
PLAIN_TOKENS = 16
"""`max_tokens` of a prompt that opens no thought; one that does has the context, as chats have."""

_NO_ECHO = or_say(
    "this server does not score prompts yet; leave it out and put the prompt before the text"
)
_NO_SUFFIX = or_say("this server does not fill in the middle; leave it out")


def _prompts(given: Any) -> list[str | list[int]]:
    """One prompt or several, each a text or token ids: all are made a list of prompts."""
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
    """`thinking` "open" says that the prompts end inside a thought."""

    thinking: Literal["open"] | None = None


class _Question(Strict):
    model: Name | None = None
    prompt: Prompts


class CompletionRequest(Noise, SamplingFields, BudgetFields, _Question):
    """The body."""

    ponder: CompletionOptions = Field(default_factory=CompletionOptions)
    logprobs: Annotated[int, Field(ge=0, le=20, strict=True)] | None = None
    add_special_tokens: StrictBool = True
    echo: Annotated[Literal[False] | None, _NO_ECHO] = None
    suffix: Annotated[None, _NO_SUFFIX] = None
    best_of: Annotated[int, Field(ge=1, le=128, strict=True)] | None = None
    user: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if self.best_of not in (None, self.n):
            raise ValueError(
                f"best_of {self.best_of} is not n {self.n}: this server ranks no choices; leave it "
                f"out"
            )
        limit = self.max_tokens
        self.check_least("max_tokens", PLAIN_TOKENS if limit is None else limit, self.ponder)
        return self

    def neutral(self, headers: Mapping[str, str]) -> ChatRequest:
        """Raises `ApiError` for a budget that is none."""
        opened = self.ponder.thinking == "open"
        return ChatRequest(
            id=f"cmpl-{uuid.uuid4().hex}",
            prompts=[
                Raw(prompt, opened, PLAIN_TOKENS, self.add_special_tokens) for prompt in self.prompt
            ],
            model=self.model,
            ask=read_ask(self, self.max_tokens),
            ponder=self.ponder,
            sampling=self.sampling,
            rules=self.rules,
            n=self.n,
            logprobs=self.logprobs,
            shows_thought=self.shows_reasoning,
            stream=self.stream,
            usage=self.tells_usage,
            conversation=read_conversation(headers, self.ponder.scope, self.user),
        )


class TextLogprobs(BaseModel):
    """Log probabilities of the sampled answer tokens, in parallel lists.

    `text_offset` is where a token begins in `text`, in characters. `top_logprobs` holds the
    sampled token beside the best ones; of tokens with the same text the best.
    """

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """Choice `prompt * n + j` is the j-th of its prompt. `text` is the answer, after a thought."""

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
    """One server-sent event."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChunkChoice]
    usage: Usage | TokenCounts | None = None


class _Lists:
    """One choice's log probabilities, written as the four lists of `TextLogprobs`."""

    def __init__(self, texts: TokenTexts, top: int) -> None:
        self._texts = texts
        self._top = top
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._read = 0  # characters that the tokens until now have made
        self._hidden: int | None = None  # of them, leading blank that the text does not show

    def columns(self, answer: AnswerDelta) -> tuple[str, str, str, str]:
        """The entries of each list, with commas between them."""
        tokens, logprobs, tops, starts = [], [], [], []
        said = ""
        for entry in answer.logprobs:
            token, _ = self._texts[entry.token_id]
            tokens.append(token)
            logprobs.append(str(max(entry.logprob, LEAST)))
            top = {token: max(entry.logprob, LEAST)}
            for token_id, logprob in islice(entry.top, self._top):
                top.setdefault(self._texts[token_id][0], max(logprob, LEAST))
            tops.append(f"{{{','.join(f'{name}:{value}' for name, value in top.items())}}}")
            starts.append(self._read + len(said))
            said += self._decoder.decode(self._texts.token_bytes(entry.token_id))
        self._read += len(said)
        if self._hidden is None:
            self._hidden = _hidden(said, answer.text)
        offsets = [str(max(0, start - self._hidden)) for start in starts]
        return ",".join(tokens), ",".join(logprobs), ",".join(tops), ",".join(offsets)


def _hidden(said: str, shown: str) -> int:
    """How much of what the first tokens say is not shown; negative where more is shown.

    Their leading blank may be dropped, an answer prefix may stand before them, and the end of the
    last one may be held back, as it may be a stop string's beginning.
    """
    if shown.endswith(said) or said.endswith(shown):
        return len(said) - len(shown)
    for begins in (said, said.lstrip()):
        for prefix in range(len(shown)):
            if begins.startswith(shown[prefix:]) or shown.startswith(begins, prefix):
                return len(said) - len(begins) - prefix
    return 0


def _written(columns: Sequence[str | bytes | bytearray]) -> Parts:
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    parts: Parts = [b"{"]
    for index, (name, column) in enumerate(zip(names, columns, strict=True)):
        parts.append(f'{"," if index else ""}"{name}":['.encode())
        parts += [column.encode() if isinstance(column, str) else bytearray(column), b"]"]
    return [*parts, b"}"]


class WholeText(Whole):
    """One `TextCompletion`."""

    kind = "text_completion"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._lists = _lists(reply)
        self._columns = [tuple(bytearray() for _ in range(4)) for _ in self._lists]

    def tell_logprobs(self, index: int, answer: AnswerDelta) -> None:
        if self._lists and answer.logprobs:
            entries = self._lists[index].columns(answer)
            for column, said in zip(self._columns[index], entries, strict=True):
                column.extend(f",{said}".encode() if column else said.encode())

    def choice(self, index: int, finish: str, report: str) -> Parts:
        return [
            f'{{"index":{index},"text":"'.encode(),
            self.texts[index],
            b'","reasoning":',
            *self.thought(index),
            b',"logprobs":',
            *(_written(self._columns[index]) if self._lists else [b"null"]),
            f',"finish_reason":{finish},"ponder":{report}}}'.encode(),
        ]


class StreamedText(Stream):
    """Events that are each a `TextChunk`."""

    kind = "text_completion"

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._lists = _lists(reply)

    def event(self, index: int, event: Event) -> bytes:
        if isinstance(event, AnswerDelta):
            logprobs = "null"
            if self._lists:
                logprobs = b"".join(_written(self._lists[index].columns(event))).decode()
            return self.chunk(index, f'"text": {to_json(event.text)}', logprobs)
        if isinstance(event, ThoughtDelta) and self.shows_thought:
            return self.chunk(index, f'"text": "", "reasoning": {to_json(event.text)}')
        return b""

    def ending(self, report: str) -> str:
        return '"text": ""'


def _lists(reply: Reply) -> list[_Lists]:
    """For each choice; none where no log probabilities were asked for."""
    request = reply.request
    if request.logprobs is None:
        return []
    return [_Lists(reply.token_texts, request.logprobs) for _ in range(request.choices)]


class Completions:
    """Prompts in, texts out."""

    name = "completions"
    summary = "Continue prompts as they are; one that opens a thought thinks within a budget."
    request = CompletionRequest
    response = TextCompletion
    chunk = TextChunk
    failure = ErrorResponse
    done = "[DONE]"
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

    def error(self, error: ApiError) -> bytes:
        return error_body(error)
