"""A completion as its client reads it, whole or as a stream: JSON text, written as it comes."""

from __future__ import annotations

import json

from ponder.protocol.request import StreamOptions
from ponder.server.completion import Completion
from ponder.server.logprobs import LogprobWriter
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import ThoughtDelta

_to_json = json.JSONEncoder().encode


class WholeReply:
    """Gathers the deltas of every choice into one response (`ChatCompletion`).

    What is gathered is the text of the response itself, so that nothing is left to be made when
    the last choice ends, and no more memory is taken than is sent.
    """

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self._shows_reasoning = completion.request.shows_reasoning
        self._logprobs = _writer(completion)
        choices = range(completion.request.n)
        self._reasoning = [bytearray() for _ in choices]
        self._content = [bytearray() for _ in choices]
        self._entries = [bytearray() for _ in choices]

    def emit(self, index: int, delta: ThoughtDelta | AnswerDelta) -> None:
        if isinstance(delta, ThoughtDelta):
            if self._shows_reasoning:
                self._reasoning[index] += _inside(delta.text)
            return
        self._content[index] += _inside(delta.text)
        if delta.logprobs and (entries := self._logprobs.entries(delta.logprobs)):
            written = self._entries[index]
            written += f",{entries}".encode() if written else entries.encode()

    def parts(self) -> list[bytes | bytearray]:
        """The response, in order."""
        completion = self._completion
        envelope = _compact(
            {
                "id": completion.id,
                "object": "chat.completion",
                "created": completion.created,
                "model": completion.model.name,
            }
        )
        parts: list[bytes | bytearray] = [f'{envelope[:-1]},"choices":['.encode()]
        for index in range(completion.request.n):
            parts += [b"," if index else b"", *self._choice(index)]
        parts.append(f'],"usage":{completion.usage().model_dump_json()}}}'.encode())
        return parts

    def _choice(self, index: int) -> list[bytes | bytearray]:
        completion = self._completion
        reasoning: list[bytes | bytearray] = [b"null"]
        if self._reasoning[index]:
            reasoning = [b'"', self._reasoning[index], b'"']
        before, _, after = self._logprobs.around("|").partition("|")
        finish = completion.outcomes[index].finish_reason
        report = completion.report(index).model_dump_json()
        return [
            f'{{"index":{index},"message":{{"role":"assistant","content":"'.encode(),
            self._content[index],
            b'","reasoning":',
            *reasoning,
            b',"reasoning_content":',
            *reasoning,
            f'}},"logprobs":{before}'.encode(),
            self._entries[index],
            f'{after},"finish_reason":"{finish}","ponder":{report}}}'.encode(),
        ]


class StreamedReply:
    """Turns deltas into server-sent events (each a `ChatCompletionChunk`).

    The envelope of an event does not change within a reply, so it is encoded once.
    """

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self._shows_reasoning = completion.request.shows_reasoning
        options = completion.request.stream_options or StreamOptions()
        self._with_usage = options.include_usage
        self._counts = self._with_usage and options.continuous_usage_stats
        envelope = json.dumps(
            {
                "id": completion.id,
                "object": "chat.completion.chunk",
                "created": completion.created,
                "model": completion.model.name,
            }
        )
        self._head = f'data: {envelope[:-1]}, "choices": '
        self._usage = ', "usage": null' if self._with_usage else ""
        self._opened = [False] * completion.request.n
        self._logprobs = _writer(completion)

    def event(self, index: int, delta: ThoughtDelta | AnswerDelta) -> bytes:
        """The event that says this delta; empty for reasoning that is not shown."""
        if isinstance(delta, AnswerDelta):
            logprobs = self._logprobs.around(self._logprobs.entries(delta.logprobs))
            return self._event(index, f'{{"content": {_to_json(delta.text)}}}', logprobs)
        if self._shows_reasoning:
            return self._event(index, f'{{"reasoning": {_to_json(delta.text)}}}')
        return b""

    def closing(self) -> bytes:
        """The last chunk of every choice, usage if it was asked for, and `[DONE]`."""
        completion = self._completion
        events = []
        for index, outcome in enumerate(completion.outcomes):
            report = completion.report(index).model_dump_json()
            end = f'"finish_reason": "{outcome.finish_reason}", "ponder": {report}'
            events.append(self._event(index, "{}", end=end))
        if self._with_usage:
            usage = completion.usage().model_dump_json()
            events.append(f'{self._head}[], "usage": {usage}}}\n\n'.encode())
        return b"".join([*events, b"data: [DONE]\n\n"])

    def _event(
        self, index: int, delta: str, logprobs: str = "null", end: str = '"finish_reason": null'
    ) -> bytes:
        """One event from encoded parts; a choice's first one is preceded by its role."""
        opening = ""
        if not self._opened[index]:
            self._opened[index] = True
            opening = self._choice(index, '{"role": "assistant", "content": ""}')
        return (opening + self._choice(index, delta, logprobs, end)).encode()

    def _choice(
        self, index: int, delta: str, logprobs: str = "null", end: str = '"finish_reason": null'
    ) -> str:
        choice = f'{{"index": {index}, "delta": {delta}, "logprobs": {logprobs}, {end}}}'
        usage = self._usage
        if self._counts:
            usage = f', "usage": {self._completion.tokens().model_dump_json()}'
        return f"{self._head}[{choice}]{usage}}}\n\n"


def _writer(completion: Completion) -> LogprobWriter:
    request = completion.request
    top = request.top_logprobs or 0 if request.logprobs else None
    return LogprobWriter(completion.model.token_texts, top)


def _inside(text: str) -> bytes:
    """A text as it stands between the quotes of a JSON string."""
    return _to_json(text)[1:-1].encode()


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
