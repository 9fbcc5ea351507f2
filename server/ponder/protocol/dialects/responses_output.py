"""The output of `/v1/responses`: makes items from a thought's events.

The open item gathers its own text as JSON, and is written once it has ended, whole or at the end of
a stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ponder.engine.protocol import CallPart
from ponder.protocol.chat import ChatRequest
from ponder.protocol.dialect import Reply
from ponder.protocol.dialects.openai import Parts, inside, to_json
from ponder.protocol.dialects.responses_tools import Callee
from ponder.protocol.history import read_arguments
from ponder.protocol.logprobs import LogprobWriter
from ponder.protocol.seal import Seal
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import InterimAnswer, Outcome, ThoughtDelta
from ponder.thought.thought import Event

Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesAsk(ChatRequest):
    """A request with the fields that only this dialect's replies need.

    `callees` are the client's names for the functions that the model may call, and `repeated` are
    the fields of the request that the response repeats. `seals` adds a sealed copy of thoughts.
    """

    callees: Mapping[str, Callee] = field(default_factory=dict)
    repeated: Mapping[str, Any] = field(default_factory=dict)
    seals: bool = False


class Item(ABC):
    """One item: the `number`-th of its response.

    `delta` names the event that adds text, `said` the event that has all of it, in the field
    `text_field`.
    """

    prefix: ClassVar[str]
    delta: ClassVar[str]
    said: ClassVar[str]
    text_field: ClassVar[str] = "text"

    def __init__(self, response: str, number: int) -> None:
        self.id = f"{self.prefix}_{response.removeprefix('resp_')}_{number}"
        self.number = number
        self.status: Status = "in_progress"
        self.text = bytearray()  # the text between the quotes of a JSON string

    @abstractmethod
    def add(self, event: Event) -> str:
        """Add an event. Returns the JSON of its `delta`, and of the fields behind that."""

    @abstractmethod
    def json(self) -> Parts:
        """The item as JSON; an item in progress shows none of the text that it has gathered."""

    def part(self) -> Parts | None:
        """The content part that holds its text; None where the item itself does."""
        return None

    @property
    def shown(self) -> bytearray:
        return bytearray() if self.status == "in_progress" else self.text

    def end(self, *, cut: bool = False) -> None:
        """End the item; `cut` says that it is incomplete."""
        self.status = "incomplete" if cut else "completed"

    def _add(self, text: str) -> str:
        value = to_json(text)
        self.text += value[1:-1].encode()
        return value


class Reasoning(Item):
    prefix = "rs"
    delta, said = "response.reasoning_text.delta", "response.reasoning_text.done"

    def __init__(self, response: str, number: int, seals: bool) -> None:
        super().__init__(response, number)
        self._seal = Seal() if seals else None

    def add(self, event: Event) -> str:
        assert isinstance(event, ThoughtDelta)
        if self._seal is not None:
            self._seal.add(event.text)
        return self._add(event.text)

    def part(self) -> Parts:
        return [b'{"type":"reasoning_text","text":"', self.shown, b'"}']

    def json(self) -> Parts:
        start = f'{{"id":"{self.id}","type":"reasoning","summary":[],"content":['.encode()
        end = f'],"status":"{self.status}"}}'
        if self.status == "in_progress":
            return [start, end.encode()]
        if self._seal is not None:
            end = f'],"encrypted_content":"{self._seal.text()}","status":"{self.status}"}}'
        return [start, *self.part(), end.encode()]


class Message(Item):
    prefix = "msg"
    delta, said = "response.output_text.delta", "response.output_text.done"

    def __init__(self, response: str, number: int, logprobs: LogprobWriter) -> None:
        super().__init__(response, number)
        self._logprobs = logprobs
        self.entries = bytearray()

    def add(self, event: Event) -> str:
        assert isinstance(event, AnswerDelta)
        entries = self._logprobs.entries(event.logprobs)
        if entries:
            self.entries += f",{entries}".encode() if self.entries else entries.encode()
        return f'{self._add(event.text)},"logprobs":[{entries}]'

    def part(self) -> Parts:
        start = b'{"type":"output_text","annotations":[],"logprobs":['
        entries = bytearray() if self.status == "in_progress" else self.entries
        return [start, entries, b'],"text":"', self.shown, b'"}']

    def json(self) -> Parts:
        start = f'{{"id":"{self.id}","type":"message","role":"assistant","content":['
        content = [] if self.status == "in_progress" else self.part()
        return [start.encode(), *content, f'],"status":"{self.status}"}}'.encode()]


class Call(Item):
    """A call of a function, by the client's name; the `index`-th of its answer."""

    prefix = "fc"
    delta = "response.function_call_arguments.delta"
    said = "response.function_call_arguments.done"
    text_field = "arguments"
    kind: ClassVar[str] = "function_call"

    def __init__(self, response: str, number: int, part: CallPart, callee: Callee) -> None:
        super().__init__(response, number)
        self.index = part.index
        self._callee = f'"call_id":{to_json(part.id or "")},"name":{to_json(callee.name)}'
        if callee.namespace is not None:
            self._callee += f',"namespace":{to_json(callee.namespace)}'

    def add(self, event: Event) -> str:
        assert isinstance(event, CallPart)
        return self._add(event.arguments)

    def json(self) -> Parts:
        start = f'{{"id":"{self.id}","type":"{self.kind}",{self._callee},"{self.text_field}":"'
        return [start.encode(), self.shown, f'","status":"{self.status}"}}'.encode()]


class CustomCall(Call):
    """A call of a custom tool, whose text is an argument of the function that stands for it.

    The text is known once all arguments are there.
    """

    prefix = "ctc"
    delta = "response.custom_tool_call_input.delta"
    said = "response.custom_tool_call_input.done"
    text_field = "input"
    kind = "custom_tool_call"

    def __init__(self, response: str, number: int, part: CallPart, callee: Callee) -> None:
        super().__init__(response, number, part, callee)
        self._arguments: list[str] = []

    def add(self, event: Event) -> str:
        assert isinstance(event, CallPart)
        self._arguments.append(event.arguments)
        return '""'

    def end(self, *, cut: bool = False) -> None:
        super().end(cut=cut)
        self.text += inside(_input("".join(self._arguments)))


def _input(arguments: str) -> str:
    """The text of a custom call, also from truncated arguments; else the arguments as they are.

    Truncation may leave an incomplete escape, which is up to six characters long.
    """
    cut = (arguments[: len(arguments) - half] + '"}' for half in range(6))
    for whole in (arguments, *cut):
        given = read_arguments(whole)
        if given is not None and isinstance(given.get("input"), str):
            text: str = given["input"]
            return text
    return arguments


class Output:
    """The items of a response. The last one is open until it ends."""

    def __init__(self, reply: Reply) -> None:
        request = reply.request
        assert isinstance(request, ResponsesAsk)
        self.items: list[Item] = []
        self.open: Item | None = None
        self._request = request
        self._logprobs = LogprobWriter(reply.token_texts, request.logprobs)
        self._blank: list[AnswerDelta] = []

    def take(self, event: Event) -> tuple[Item, str] | None:
        """Add an event to the open item, or to a new one if its kind differs.

        Returns the item and the result of `Item.add`. Returns None for events that no item shows:
        hidden thoughts, interim answers, and blank between items, which models write around calls.
        """
        request, item = self._request, self.open
        number = len(self.items)
        if isinstance(event, ThoughtDelta):
            if not (event.text and request.shows_thought):
                return None
            if not isinstance(item, Reasoning):
                item = self._begin(Reasoning(request.id, number, request.seals))
        elif isinstance(event, CallPart):
            if not (isinstance(item, Call) and item.index == event.index):
                name = event.name or ""
                callee = request.callees.get(name, Callee(name))
                kind = CustomCall if callee.custom else Call
                item = self._begin(kind(request.id, number, event, callee))
        elif isinstance(event, InterimAnswer):
            return None
        elif not isinstance(item, Message):
            self._blank.append(event)
            if not event.text.strip():
                return None
            event = AnswerDelta(
                "".join(held.text for held in self._blank),
                tuple(entry for held in self._blank for entry in held.logprobs),
            )
            item = self._begin(Message(request.id, number, self._logprobs))
        return item, item.add(event)

    def _begin(self, item: Item) -> Item:
        if self.open is not None:
            self.open.end()
        self.items.append(item)
        self.open = item
        self._blank.clear()
        return item

    def end(self, outcome: Outcome | None) -> None:
        """End the open item, which is complete unless a limit or a failure cut it."""
        item, self.open = self.open, None
        if item is None:
            return
        if outcome is None:
            item.end(cut=True)
        elif isinstance(item, Call):
            item.end(cut=item.index >= outcome.calls)
        else:
            item.end(cut=outcome.finish_reason == "length")

    def json(self) -> Parts:
        """The items as JSON, joined by commas."""
        parts: Parts = []
        for item in self.items:
            parts += [b"," if parts else b"", *item.json()]
        return parts
