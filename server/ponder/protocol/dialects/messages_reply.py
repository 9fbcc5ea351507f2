"""Writes the replies of `/v1/messages`: content blocks, whole and as they come.

A block holds consecutive events of one kind: a thought, text, or a call.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from ponder.engine.protocol import CallPart
from ponder.protocol.chat import ChatRequest
from ponder.protocol.dialect import Reply
from ponder.protocol.dialects.messages_shapes import (
    MessageUsage,
    OutputTokensDetails,
    StopDelta,
    StopReason,
    refusal,
)
from ponder.protocol.dialects.openai import Parts, inside, to_json
from ponder.protocol.errors import ApiError
from ponder.protocol.history import read_arguments
from ponder.protocol.response import PonderReport
from ponder.protocol.seal import Seal
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import Outcome
from ponder.thought.thought import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesAsk(ChatRequest):
    """A request whose reply may hold a thought only in its signature."""

    omits_thought: bool = False


def _stop_reason(outcome: Outcome) -> StopReason:
    """The reason of the end. A limit comes first: it may have truncated a call."""
    if outcome.finish_reason == "length":
        return "max_tokens"
    if outcome.calls:
        return "tool_use"
    return "end_turn" if outcome.stop_string is None else "stop_sequence"


def _ending(reply: Reply) -> tuple[StopDelta, MessageUsage, PonderReport]:
    outcome, spent = reply.outcomes[0], reply.spent()
    reason = _stop_reason(outcome)
    stop = StopDelta(
        stop_reason=reason,
        stop_sequence=outcome.stop_string if reason == "stop_sequence" else None,
    )
    usage = MessageUsage(
        input_tokens=spent.prompt - spent.cached,
        cache_read_input_tokens=spent.cached,
        output_tokens=spent.completion,
        output_tokens_details=OutputTokensDetails(thinking_tokens=spent.thinking),
    )
    return stop, usage, reply.report(0)


_BLANK = {"thinking": '"thinking":"","signature":""', "text": '"text":""'}
_DELTA = {"thinking": '"thinking_delta","thinking":', "text": '"text_delta","text":'}
_CALL_DELTA = '"input_json_delta","partial_json":'


class _Blocks:
    """Assigns events to content blocks."""

    def __init__(self, reply: Reply) -> None:
        request = reply.request
        self.reply = reply
        self.open: str | int | None = None  # the kind of the open block; a call's number
        self._omits = isinstance(request, MessagesAsk) and request.omits_thought
        self._shows = request.shows_thought
        self._seal = Seal()  # of the thought in the open block, where it is not shown

    def said(self, event: Event) -> tuple[str | int, str] | None:
        """The kind of the event's block, and the text that it adds; None if it adds nothing."""
        if isinstance(event, AnswerDelta):
            return ("text", event.text) if event.text else None
        if isinstance(event, CallPart):
            return event.index, event.arguments
        if not self._shows:
            return None
        if self._omits:
            self._seal.add(event.text)
        return "thinking", "" if self._omits else event.text

    def signature(self) -> str:
        """The signature of the open block, which ends."""
        seal, self._seal = self._seal, Seal()
        return seal.text()


class WholeMessage(_Blocks):
    """One `AnthropicMessage`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._content: Parts = []
        self._text = bytearray()  # the end of the content
        self._arguments: list[str] = []  # of the open block's call

    def event(self, index: int, event: Event) -> None:
        said = self.said(event)
        if said is None:
            return
        kind, text = said
        if self.open != kind:
            self._close()
            head = f'"{kind}":"' if isinstance(kind, str) else f'{_call(event)},"input":'
            self.open, self._text = kind, bytearray()
            self._content += [f',{{"type":"{_type(kind)}",{head}'.encode(), self._text]
        if isinstance(kind, int):
            self._arguments.append(text)
        else:
            self._text += inside(text)

    def parts(self) -> Parts:
        self._close()
        stop, usage, report = _ending(self.reply)
        head = json.dumps(_envelope(self.reply), separators=(",", ":"))
        end = f'{stop.model_dump_json()[1:-1]},"usage":{usage.model_dump_json()}'
        content = self._content or [b',{"type":"text","text":""}']
        return [
            f'{head[:-1]},"content":['.encode(),
            content[0][1:],  # without its comma
            *content[1:],
            f'],{end},"ponder":{report.model_dump_json()}}}'.encode(),
        ]

    def _close(self) -> None:
        if isinstance(self.open, int):
            self._text += json.dumps(_input("".join(self._arguments))).encode() + b"}"
            self._arguments.clear()
        elif self.open == "thinking":
            self._text += f'","signature":"{self.signature()}"}}'.encode()
        elif self.open == "text":
            self._text += b'"}'
        self.open = None


def _input(arguments: str) -> dict[str, Any]:
    """A call's input; of truncated arguments the complete part, as Anthropic's clients do it."""
    if (whole := read_arguments(arguments)) is not None:
        return whole
    try:
        read = from_json(arguments, allow_partial=True, allow_inf_nan=False)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


class StreamedMessage(_Blocks):
    """Writes server-sent events. The constant part of a block's deltas is encoded once."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self._blocks = 0
        self._delta = ""  # an event of the open block, up to the text that it adds

    def event(self, index: int, event: Event) -> bytes:
        said = self.said(event)
        if said is None:
            return b""
        kind, text = said
        opening = "" if self.open == kind else self._begin(kind, event)
        if not text:
            return opening.encode()
        return f"{opening}{self._delta}{to_json(text)}}}}}\n\n".encode()

    def closing(self) -> bytes:
        before = "" if self._blocks else self._begin("text", None)
        before += self._end()
        stop, usage, report = _ending(self.reply)
        said = f'"delta":{stop.model_dump_json()},"usage":{usage.model_dump_json()}'
        said += f',"ponder":{report.model_dump_json()}'
        return f"{before}{_event('message_delta', said)}{_event('message_stop')}".encode()

    def broken(self, error: ApiError) -> bytes:
        return b"event: error\ndata: " + refusal(error, self.reply.request.id).body + b"\n\n"

    def _begin(self, kind: str | int, event: Event | None) -> str:
        """Begin a block, after the end of the open one or after the beginning of the message."""
        before = self._end() if self._blocks else self._start()
        at = f'"index":{self._blocks}'
        self.open, self._blocks = kind, self._blocks + 1
        blank, delta = f'{_call(event)},"input":{{}}', _CALL_DELTA
        if isinstance(kind, str):
            blank, delta = _BLANK[kind], _DELTA[kind]
        self._delta = _event("content_block_delta", f'{at},"delta":{{"type":{delta}')[:-3]
        block = f'{{"type":"{_type(kind)}",{blank}}}'
        return before + _event("content_block_start", f'{at},"content_block":{block}')

    def _start(self) -> str:
        usage = MessageUsage(
            input_tokens=self.reply.prompt_tokens,
            cache_read_input_tokens=0,
            output_tokens=0,
            output_tokens_details=OutputTokensDetails(thinking_tokens=0),
        )
        message = {**_envelope(self.reply), "content": [], "stop_reason": None}
        message |= {"stop_sequence": None, "usage": usage.model_dump()}
        said = f'"message":{json.dumps(message, separators=(",", ":"))}'
        return _event("message_start", said) + _event("ping")

    def _end(self) -> str:
        """End the open block; a thought's ends with its signature."""
        if self.open is None:
            return ""
        at, signed = f'"index":{self._blocks - 1}', ""
        if self.open == "thinking":
            delta = f'{{"type":"signature_delta","signature":"{self.signature()}"}}'
            signed = _event("content_block_delta", f'{at},"delta":{delta}')
        self.open = None
        return signed + _event("content_block_stop", at)


def _type(kind: str | int) -> str:
    return kind if isinstance(kind, str) else "tool_use"


def _call(event: Event | None) -> str:
    """The JSON members of the call that an event begins: its id and name."""
    if not isinstance(event, CallPart):
        return ""
    return f'"id":{to_json(event.id)},"name":{to_json(event.name)}'


def _event(kind: str, said: str = "") -> str:
    return f'event: {kind}\ndata: {{"type":"{kind}"{"," if said else ""}{said}}}\n\n'


def _envelope(reply: Reply) -> dict[str, object]:
    return {
        "id": reply.request.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model_name,
    }
