"""The common parts of OpenAI's dialects: usage, errors, and writers of replies.

The writers make the text of a response while its tokens come, so that no work is left when the last
choice ends, and the reply takes no more memory than its bytes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import ClassVar

from ponder.protocol.dialect import Refusal, Reply
from ponder.protocol.errors import ApiError
from ponder.protocol.response import (
    CompletionTokensDetails,
    InterimReport,
    PromptTokensDetails,
    TokenCounts,
    Usage,
)
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import InterimAnswer, Outcome, ThoughtDelta
from ponder.thought.thought import Event

Parts = list[bytes | bytearray]
to_json = json.JSONEncoder().encode


def inside(text: str) -> bytes:
    """The bytes of a text between the quotes of a JSON string."""
    return to_json(text)[1:-1].encode()


ID_HEADERS = ("x-request-id",)


def refusal(error: ApiError) -> Refusal:
    body = json.dumps(error.body(), ensure_ascii=False, separators=(",", ":"))
    return Refusal(error.status, body.encode())


class Whole(ABC):
    """Writes one response; `kind` is its `object`. The dialect writes the choices."""

    kind: ClassVar[str]

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self._shows_thought = reply.request.shows_thought
        choices = range(reply.request.choices)
        self.thoughts = [bytearray() for _ in choices]
        self.texts = [bytearray() for _ in choices]

    @abstractmethod
    def choice(self, index: int, finish: str, report: str) -> Parts:
        """The JSON of a choice that has ended; `finish` and `report` are JSON."""

    @abstractmethod
    def tell_logprobs(self, index: int, answer: AnswerDelta) -> None: ...

    def event(self, index: int, event: Event) -> None:
        if isinstance(event, AnswerDelta):
            self.tell_logprobs(index, event)
            self.texts[index] += inside(event.text)
        elif isinstance(event, ThoughtDelta) and self._shows_thought:
            self.thoughts[index] += inside(event.text)

    def parts(self) -> Parts:
        reply = self.reply
        envelope = json.dumps(_envelope(reply, self.kind), separators=(",", ":"))
        parts: Parts = [f'{envelope[:-1]},"choices":['.encode()]
        for index, outcome in enumerate(reply.outcomes):
            finish = to_json(finished(reply, outcome))
            report = reply.report(index).model_dump_json()
            parts += [b"," if index else b"", *self.choice(index, finish, report)]
        parts.append(f'],"usage":{_usage(reply).model_dump_json()}}}'.encode())
        return parts

    def thought(self, index: int) -> Parts:
        """A choice's thought as a JSON value."""
        return [b'"', self.thoughts[index], b'"'] if self.thoughts[index] else [b"null"]


class Stream(ABC):
    """Writes server-sent events; `kind` is the `object` of each.

    The envelope of events does not change within a reply, so it is encoded once. Each choice begins
    with the members `opening`, if there are any.
    """

    kind: ClassVar[str]
    opening: str | None = None

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.shows_thought = reply.request.shows_thought
        self._with_usage = reply.request.usage != "never"
        self._counts = reply.request.usage == "always"
        self._head = f'data: {json.dumps(_envelope(reply, self.kind))[:-1]}, "choices": '
        self._usage = ', "usage": null' if self._with_usage else ""
        self._opened = [self.opening is None] * reply.request.choices

    @abstractmethod
    def event(self, index: int, event: Event) -> bytes:
        """The bytes of an event; none for a thought that is not shown."""

    @abstractmethod
    def ending(self, report: str) -> str:
        """The members of a choice's last chunk; `report` is JSON."""

    def closing(self) -> bytes:
        """The last chunk of every choice, usage if it was asked for, and `[DONE]`."""
        reply = self.reply
        events = []
        for index, outcome in enumerate(reply.outcomes):
            report = reply.report(index).model_dump_json()
            end = f'"finish_reason": "{finished(reply, outcome)}", "ponder": {report}'
            events.append(self.chunk(index, self.ending(report), end=end))
        if self._with_usage:
            events.append(
                f'{self._head}[], "usage": {_usage(reply).model_dump_json()}}}\n\n'.encode()
            )
        return b"".join([*events, b"data: [DONE]\n\n"])

    def broken(self, error: ApiError) -> bytes:
        return f"data: {json.dumps(error.body())}\n\n".encode()

    def chunk(
        self, index: int, said: str, logprobs: str = "null", end: str = '"finish_reason": null'
    ) -> bytes:
        """One event from encoded parts."""
        opening = ""
        if not self._opened[index]:
            self._opened[index] = True
            opening = self._choice(index, self.opening or "")
        return (opening + self._choice(index, said, logprobs, end)).encode()

    def interim(self, index: int, answer: InterimAnswer) -> bytes:
        """An event without choices: clients that know no interim answers show none."""
        report = InterimReport(
            index=index,
            answer=answer.text.strip(),
            thinking_tokens=answer.thinking_tokens,
            agreement=answer.agreement,
        )
        said = f'[], "ponder": {report.model_dump_json()}'
        return f"{self._head}{said}{self._spent()}}}\n\n".encode()

    def _choice(
        self, index: int, said: str, logprobs: str = "null", end: str = '"finish_reason": null'
    ) -> str:
        choice = f'{{"index": {index}, {said}, "logprobs": {logprobs}, {end}}}'
        return f"{self._head}[{choice}]{self._spent()}}}\n\n"

    def _spent(self) -> str:
        if not self._counts:
            return self._usage
        prompt, spent = self.reply.prompt_tokens, self.reply.spent_tokens
        return (
            f', "usage": {{"prompt_tokens":{prompt},"completion_tokens":{spent},'
            f'"total_tokens":{prompt + spent}}}'
        )


def finished(reply: Reply, outcome: Outcome) -> str:
    """The finish reason; "stop" after a call that the request named, as at OpenAI."""
    tools = reply.request.tools
    called = outcome.calls and outcome.finish_reason == "stop"
    return "tool_calls" if called and tools and tools.choice != "named" else outcome.finish_reason


def _envelope(reply: Reply, kind: str) -> dict[str, object]:
    return {
        "id": reply.request.id,
        "object": kind,
        "created": reply.created,
        "model": reply.model_name,
    }


def _usage(reply: Reply) -> Usage:
    spent = reply.spent()
    return Usage(
        **TokenCounts.of(spent.prompt, spent.completion).model_dump(),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=spent.thinking),
        prompt_tokens_details=PromptTokensDetails(cached_tokens=spent.cached),
    )
