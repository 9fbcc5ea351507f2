"""A dialect: `POST /ask` takes a question and a budget, and gives a thought and an answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field, StrictBool

from ponder.protocol.body import read_body
from ponder.protocol.chat import NAMES, ChatRequest, Turns
from ponder.protocol.dialect import Refusal, Reply
from ponder.protocol.errors import ApiError
from ponder.protocol.fields import Strict, Tokens
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Ask
from ponder.thought.thought import Event


class Question(Strict):
    """The body. `Strict` refuses unknown fields; `read_body` turns pydantic's errors into ours."""

    question: str = Field(min_length=1)
    budget: Tokens | None = None
    stream: StrictBool = False


class Said(BaseModel):
    """The whole reply."""

    thought: str
    answer: str
    end_cause: str
    tokens: int


class Piece(BaseModel):
    """An event of a stream: it sets one of the two fields."""

    thought: str | None = None
    answer: str | None = None


class Failure(BaseModel):
    error: str
    field: str | None = None


class Whole:
    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._texts = {"thought": "", "answer": ""}

    def event(self, index: int, event: Event) -> None:
        self._texts[_part(event)] += event.text

    def parts(self) -> Sequence[bytes]:
        spent = self._reply.spent()
        cause = self._reply.outcomes[0].end_cause
        said = Said(**self._texts, end_cause=cause, tokens=spent.completion)
        return [said.model_dump_json().encode()]


class Stream:
    def event(self, index: int, event: Event) -> bytes:
        return _event({_part(event): event.text})

    def closing(self) -> bytes:
        return _event({})

    def broken(self, error: ApiError) -> bytes:
        return _event(_failure(error))


class AskDialect:
    """Its row in `ponder.protocol.dialects.DIALECTS` is `"/ask": AskDialect()`."""

    name = "ask"
    summary = "Answer a question within a budget."
    request = Question
    response = Said
    chunk = Piece
    failure = Failure
    done = None
    id_headers = ("x-request-id",)
    # Error messages use these names for the fields of this body.
    fields: Mapping[str, str] = {**NAMES, "prompt": "question"}

    def read(self, body: bytes | bytearray, headers: Mapping[str, str]) -> ChatRequest:
        given = read_body(Question, body)
        return ChatRequest(
            id=f"ask-{uuid.uuid4().hex}",
            prompts=[Turns([{"role": "user", "content": given.question}])],
            ask=Ask(budget=given.budget),
            stream=given.stream,
        )

    def whole(self, reply: Reply) -> Whole:
        return Whole(reply)

    def stream(self, reply: Reply) -> Stream:
        return Stream()

    def error(self, error: ApiError, request_id: str) -> Refusal:
        return Refusal(error.status, json.dumps(_failure(error)).encode())


def _part(event: Event) -> str:
    return "answer" if isinstance(event, AnswerDelta) else "thought"


def _failure(error: ApiError) -> dict[str, str | None]:
    return {"error": str(error), "field": error.param}


def _event(said: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(said)}\n\n".encode()
