"""Calls as gpt-oss writes them: a message whose header names the function.

    <|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}<|call|>

Ponder reads headers by token ids before the parser sees them (`ponder.thought.harmony`), and gives
the parser `<|channel|>commentary to=functions.`, the name and a line break, however the model
spelt the header. vLLM's own parser counts a call's arguments as a thought.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ponder.engine.grammars import check_strict
from ponder.engine.hermes import end_of_object, half, held_arguments
from ponder.engine.protocol import AnswerParser, CallPart, Grammar, Tool

BEGIN = "<|channel|>commentary to=functions."
_END = ["<|end|>", ""]  # a grammar cannot name the tokens that end the request


class Harmony:
    """Parses calls as they stream; its grammars are structural tags of xgrammar.

    A grammar begins with the header of the answer's message, which a closed thought leaves to the
    model: every request with tools has one, so that no answer thinks again.
    """

    name = "openai"

    def parsers(self, tools: Sequence[Tool]) -> Callable[[], AnswerParser]:
        return HarmonyParser

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> Grammar:
        for tool in tools:
            check_strict(tool)
        calls = [
            _message(
                f"{BEGIN}{tool.name} <|constrain|>json<|message|>",
                {"type": "json_schema", "json_schema": held_arguments(tool)},
            )
            for tool in tools
        ]
        anything = {"type": "any_text"}
        answers = [] if required else [_message("<|channel|>final<|message|>", anything)]
        preamble = [
            {**_message("<|channel|>commentary<|message|>", anything), "end": "<|end|>"},
            {"type": "const_string", "value": "<|start|>assistant"},
        ]
        form = [
            {"type": "optional", "content": {"type": "sequence", "elements": preamble}},
            {"type": "or", "elements": [*calls, *answers]},
        ]
        tag = {"type": "structural_tag", "format": {"type": "sequence", "elements": form}}
        return Grammar("structural_tag", json.dumps(tag))


def _message(header: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tag", "begin": header, "content": content, "end": _END}


class HarmonyParser:
    """Reads one answer.

    >>> parser = HarmonyParser()
    >>> text = 'Let me see. <|channel|>commentary to=functions.add\\n{"a": 1}'
    >>> said, (begun, rest) = parser.feed(text, (), last=True)
    >>> said, begun.name, rest.arguments
    ('Let me see. ', 'add', '{"a": 1}')
    """

    def __init__(self) -> None:
        self._text = ""  # undecided text
        self._calls = -1  # the index of the current call
        self._arguments: str | None = None  # those of the current call that were told

    def feed(
        self, text: str, token_ids: Sequence[int], *, last: bool = False
    ) -> tuple[str, Sequence[CallPart]]:
        self._text += text
        said, parts = "", list[CallPart]()
        while self._text:
            if self._arguments is not None:
                parts += self._call(last=last)
                if self._arguments is not None:
                    break
                continue
            before, found, after = self._text.partition(BEGIN)
            if not found:
                kept = 0 if last else half(before, BEGIN)
                said += before[: len(before) - kept]
                self._text = before[len(before) - kept :]
                break
            name, named, arguments = after.partition("\n")
            said += before
            if not named:
                self._text = found + after
                break
            self._calls, self._arguments, self._text = self._calls + 1, "", arguments
            parts.append(CallPart(self._calls, f"call_{uuid.uuid4().hex[:24]}", name))
        return said, parts

    def _call(self, *, last: bool) -> Iterator[CallPart]:
        """The arguments that are certain; the call is over where its object ends."""
        told = self._arguments or ""
        written = told + self._text
        end = end_of_object(written)
        self._arguments = written
        if end is not None:
            self._text, written, self._arguments = written[end:].lstrip(), written[:end], None
        else:
            self._text = ""
        if len(written) > len(told):
            yield CallPart(self._calls, arguments=written[len(told) :])
