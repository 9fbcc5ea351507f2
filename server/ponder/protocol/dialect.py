"""The interface of a dialect: the shape of requests and of replies at one endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel

from ponder.engine.protocol import TokenLogprob
from ponder.protocol.chat import ChatRequest
from ponder.protocol.errors import ApiError
from ponder.protocol.logprobs import TokenTexts
from ponder.protocol.response import PonderReport
from ponder.thought.outcome import Outcome
from ponder.thought.thought import Event


@dataclass(frozen=True, slots=True)
class Spent:
    """What a reply cost, in tokens: `prompt` summed over prompts, the rest over choices.

    `cached` are those of the prompts that no choice had to read: what the first of a prompt's
    choices reads is in the cache for the others.
    """

    prompt: int
    completion: int
    thinking: int
    cached: int


class Reply(Protocol):
    """A completion as writers see it. `outcomes` is empty until every choice has ended."""

    @property
    def request(self) -> ChatRequest: ...
    @property
    def created(self) -> int:
        """Seconds since 1970."""
        ...

    @property
    def outcomes(self) -> Sequence[Outcome]: ...
    @property
    def model_name(self) -> str: ...
    @property
    def token_texts(self) -> TokenTexts: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def spent_tokens(self) -> int:
        """Completion tokens so far."""
        ...

    def echo(self, index: int) -> str:
        """The echo of a choice's prompt; empty where none was asked for."""
        ...

    def scored(self, index: int) -> tuple[Sequence[int], Sequence[TokenLogprob | None]]:
        """The tokens of a choice's prompt, with their log probabilities."""
        ...

    def spent(self) -> Spent: ...
    def report(self, index: int) -> PonderReport: ...


class WholeWriter(Protocol):
    """Gathers the events of every choice into one response."""

    def event(self, index: int, event: Event) -> None: ...
    def parts(self) -> Sequence[bytes | bytearray]:
        """The response, in order, once every choice has ended."""
        ...


class StreamWriter(Protocol):
    """Turns events into server-sent events, as they come: a stream spends most of its time here.

    Each method returns the bytes to send, which may be none.
    """

    def event(self, index: int, event: Event) -> bytes: ...
    def closing(self) -> bytes:
        """The end of every choice and of the stream, once every choice has ended."""
        ...

    def broken(self, error: ApiError) -> bytes:
        """The last event of a stream that failed."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as the client gets it: the HTTP status and the body."""

    status: int
    body: bytes


class Reader(Protocol):
    """Reads an endpoint's requests, and has its names for the fields in errors."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def request(self) -> type[BaseModel]: ...
    @property
    def response(self) -> type[BaseModel]: ...
    @property
    def fields(self) -> Mapping[str, str]: ...
    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        """Raises `ApiError` and pydantic's `ValidationError`."""
        ...


class Counter(Reader, Protocol):
    """An endpoint below a dialect's path that counts the tokens of a request's prompts."""

    def counted(self, tokens: int) -> BaseModel: ...


class Dialect(Reader, Protocol):
    """One endpoint's language; `ponder.protocol.dialects` has the table of them.

    The models describe bodies for `/openapi.json`. `fields` maps the neutral fields in errors
    (`ponder.protocol.chat.NAMES`) to the dialect's names. `done` is the text after the last event
    of a successful stream, None if there is none. `id_headers` are the response's headers that hold
    its id.

        >>> from ponder.protocol.dialects import DIALECTS
        >>> dialect = DIALECTS["/v1/chat/completions"]
        >>> body = b'{"messages": [{"role": "user", "content": "6 * 7?"}], "budget": 64}'
        >>> request = dialect.read(body, {})
        >>> request.prompts[0].turns, request.ask.budget
        ([{'role': 'user', 'content': '6 * 7?'}], 64)
    """

    @property
    def chunk(self) -> type[BaseModel]: ...
    @property
    def failure(self) -> type[BaseModel]: ...
    @property
    def done(self) -> str | None: ...
    @property
    def id_headers(self) -> Sequence[str]: ...
    def whole(self, reply: Reply) -> WholeWriter: ...
    def stream(self, reply: Reply) -> StreamWriter: ...
    def error(self, error: ApiError, request_id: str) -> Refusal:
        """The refusal for an error, already `spelled`, of the request with this id."""
        ...
