"""The replies of `/v1/responses`, whole and as events: the last event is the whole response."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from ponder.protocol.dialect import Reply
from ponder.protocol.dialects.openai import Parts
from ponder.protocol.dialects.responses_output import (
    CustomCall,
    Item,
    Message,
    Output,
    ResponsesAsk,
    Status,
)
from ponder.protocol.errors import ApiError
from ponder.protocol.response import PonderReport, TokenLogprobEntry
from ponder.thought.thought import Event


class OutputPart(BaseModel):
    """A part of an item's content; only an `output_text` has `logprobs`."""

    type: Literal["reasoning_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[TokenLogprobEntry] | None = None


class OutputItem(BaseModel):
    """A thought, an answer's text, or a call; `type` says which fields it has.

    `encrypted_content` repeats the thought, for clients that send nothing else back; it is no
    secret.
    """

    id: str
    type: Literal["reasoning", "message", "function_call", "custom_tool_call"]
    status: Status
    role: Literal["assistant"] | None = None
    content: list[OutputPart] | None = None
    summary: list[Any] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None


class ResponseInputDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int = 0


class ResponseOutputDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: ResponseInputDetails
    output_tokens: int
    output_tokens_details: ResponseOutputDetails
    total_tokens: int


class ResponseError(BaseModel):
    code: str
    message: str


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens"]


class ResponseObject(BaseModel):
    """The response, which repeats fields of its request.

    Its status is `incomplete` where a limit cut the answer, and `failed` only at the end of a
    stream. `usage` and `ponder` are there once it has ended.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    model: str
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    output: list[OutputItem]
    usage: ResponseUsage | None
    ponder: PonderReport | None
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    prompt_cache_key: str | None
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    store: Literal[False]
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int | None
    top_p: float | None
    truncation: Literal["disabled"]
    user: str | None


class ResponseEvent(BaseModel):
    """One server-sent event; `type` says which fields it has."""

    type: str
    sequence_number: int
    response: ResponseObject | None = None
    output_index: int | None = None
    item: OutputItem | None = None
    item_id: str | None = None
    content_index: int | None = None
    part: OutputPart | None = None
    delta: str | None = None
    text: str | None = None
    arguments: str | None = None
    input: str | None = None
    logprobs: list[TokenLogprobEntry] | None = None


class _Writer:
    """Writes a response. Its constant parts are encoded once."""

    def __init__(self, reply: Reply) -> None:
        request = reply.request
        assert isinstance(request, ResponsesAsk)
        self.reply = reply
        self.output = Output(reply)
        self._start = _members(
            {
                "id": request.id,
                "object": "response",
                "created_at": reply.created,
                "model": reply.model_name,
            }
        )
        self._repeated = _members(request.repeated)

    def end(self) -> Literal["completed", "incomplete"]:
        """End the open item, by the outcome. Returns the response's status."""
        outcome = self.reply.outcomes[0]
        self.output.end(outcome)
        return "incomplete" if outcome.finish_reason == "length" else "completed"

    def response(self, status: str, error: ApiError | None = None) -> Parts:
        """The response object, as it is now."""
        wrong = "null"
        if error is not None:
            wrong = ResponseError(code=error.code, message=str(error)).model_dump_json()
        why = '{"reason":"max_output_tokens"}' if status == "incomplete" else "null"
        usage = report = "null"
        if self.reply.outcomes:
            usage = _usage(self.reply).model_dump_json()
            report = self.reply.report(0).model_dump_json()
        state = f'"status":"{status}","error":{wrong},"incomplete_details":{why}'
        return [
            f'{{{self._start},{state},"output":['.encode(),
            *self.output.json(),
            f'],"usage":{usage},"ponder":{report},{self._repeated}}}'.encode(),
        ]


class WholeResponse(_Writer):
    """One `ResponseObject`."""

    def event(self, index: int, event: Event) -> None:
        self.output.take(event)

    def parts(self) -> Parts:
        return self.response(self.end())


class StreamedResponse(_Writer):
    """Writes events that are each a `ResponseEvent`, numbered from 0.

    The first two announce the response, even if only a failure follows.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._number = 0
        self._delta = b""  # the beginning of every delta of the open item

    def event(self, index: int, event: Event) -> bytes:
        opening = b"" if self._number else self._opening()
        before = self.output.open
        taken = self.output.take(event)
        if taken is None:
            return opening
        item, delta = taken
        written = [opening]
        if item is not before:
            written += [self._ended(before) if before else b"", self._begun(item)]
        if delta != '""':  # an empty delta
            written += [self._delta, delta.encode(), self._close()]
        return b"".join(written)

    def closing(self) -> bytes:
        opening = b"" if self._number else self._opening()
        last = self.output.open
        status = self.end()
        ended = self._ended(last) if last is not None else b""
        return opening + ended + self._told(status, self.response(status))

    def broken(self, error: ApiError) -> bytes:
        opening = b"" if self._number else self._opening()
        self.output.end(None)
        return opening + self._told("failed", self.response("failed", error))

    def _opening(self) -> bytes:
        response = self.response("in_progress")
        return self._told("created", response) + self._told("in_progress", response)

    def _told(self, what: str, response: Parts) -> bytes:
        return self._event(f"response.{what}", [b'"response":', *response])

    def _begun(self, item: Item) -> bytes:
        written = self._item("added", item)
        if (part := item.part()) is not None:
            written += self._part("added", item, part)
        self._delta = f'{_head(item.delta)}{_place(item)},"delta":'.encode()
        return written

    def _ended(self, item: Item) -> bytes:
        place = _place(item).encode()
        written = b""
        if isinstance(item, CustomCall):
            written += self._event(item.delta, [place, b',"delta":"', item.text, b'"'])
        said: Parts = [place, f',"{item.text_field}":"'.encode(), item.text, b'"']
        if isinstance(item, Message):
            said += [b',"logprobs":[', item.entries, b"]"]
        written += self._event(item.said, said)
        if (part := item.part()) is not None:
            written += self._part("done", item, part)
        return written + self._item("done", item)

    def _item(self, what: str, item: Item) -> bytes:
        start = f'"output_index":{item.number},"item":'.encode()
        return self._event(f"response.output_item.{what}", [start, *item.json()])

    def _part(self, what: str, item: Item, part: Parts) -> bytes:
        start = f'{_place(item)},"part":'.encode()
        return self._event(f"response.content_part.{what}", [start, *part])

    def _event(self, kind: str, fields: Parts) -> bytes:
        return b"".join([_head(kind).encode(), *fields, self._close()])

    def _close(self) -> bytes:
        """The end of an event."""
        number, self._number = self._number, self._number + 1
        return f',"sequence_number":{number}}}\n\n'.encode()


def _head(kind: str) -> str:
    return f'event: {kind}\ndata: {{"type":"{kind}",'


def _place(item: Item) -> str:
    place = f'"item_id":"{item.id}","output_index":{item.number}'
    return place if item.part() is None else f'{place},"content_index":0'


def _members(fields: Mapping[str, Any]) -> str:
    """Members of a JSON object, without its braces."""
    return json.dumps(fields, separators=(",", ":"))[1:-1]


def _usage(reply: Reply) -> ResponseUsage:
    spent = reply.spent()
    return ResponseUsage(
        input_tokens=spent.prompt,
        input_tokens_details=ResponseInputDetails(cached_tokens=spent.cached),
        output_tokens=spent.completion,
        output_tokens_details=ResponseOutputDetails(reasoning_tokens=spent.thinking),
        total_tokens=spent.prompt + spent.completion,
    )
