"""Calls as gpt-oss writes them: a message whose header names the function.

    <|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}<|call|>

Ponder reads headers by token ids before the parser sees them (`ponder.thought.harmony`), and gives
the parser `<|channel|>commentary to=functions.`, the name and a line break, however the model
spelt the header. vLLM's own parser counts a call's arguments as a thought.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ponder.engine.grammars import check_strict
from ponder.engine.hermes import arguments_of, end_of_object, half
from ponder.engine.protocol import (
    AnswerParser,
    CallPart,
    EngineSetupError,
    Grammar,
    Tool,
    Vocabulary,
)

Part = Mapping[str, Any]

BEGIN = "<|channel|>commentary to=functions."
_SPECIAL = ("channel", "constrain", "end", "message", "start")


class Harmony:
    """Parses calls as they stream; its grammars are structural tags of xgrammar.

    A grammar begins with the header of the answer's message, which a closed thought leaves to the
    model: every request with tools has one, so that no answer thinks again. It names special tokens
    by their ids, since a model may spell them in plain characters, and each of them beside a text:
    xgrammar's cache (0.2) takes rules that differ in an id alone for the same.
    """

    name = "openai"

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Raises `EngineSetupError` for a vocabulary without harmony's special tokens."""
        ids = {name: vocabulary.encode(f"<|{name}|>") for name in _SPECIAL}
        if missing := [name for name, found in ids.items() if len(found) != 1]:
            raise EngineSetupError(
                f"--tool-parser {self.name} is gpt-oss's: this model has no <|{missing[0]}|> token"
            )
        self._tokens = {name: {"type": "token", "token": id_} for name, (id_,) in ids.items()}

    def parsers(self, tools: Sequence[Tool]) -> Callable[[], AnswerParser]:
        return HarmonyParser

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> Grammar:
        for tool in tools:
            check_strict(tool)
        anything = {"type": "any_text"}
        calls = [
            _sequence(
                self._tag("channel", f"commentary to=functions.{tool.name} "),
                self._tag("constrain", "json", "message"),
                arguments_of(tool),
            )
            for tool in tools
        ]
        preamble = _sequence(
            self._tag("channel", "commentary", "message"),
            {"type": "tag", "begin": "", "content": anything, "end": self._tokens["end"]},
            self._tag("start", "assistant"),
        )
        if required:
            form: Part = {"type": "or", "elements": calls}
        else:
            then = {"type": "or", "elements": [*calls, self.beside_calls(anything)]}
            form = _sequence({"type": "optional", "content": preamble}, then)
        return Grammar("structural_tag", json.dumps({"type": "structural_tag", "format": form}))

    def beside_calls(self, form: Part) -> Part:
        return _sequence(self._tag("channel", "final", "message"), form)

    def _tag(self, begin: str, text: str, end: str | None = None) -> Part:
        """A text behind one special token, and in front of another."""
        said = {"type": "const_string", "value": text}
        last = self._tokens[end] if end else ""
        return {"type": "tag", "begin": self._tokens[begin], "content": said, "end": last}


def _sequence(*parts: Part) -> Part:
    return {"type": "sequence", "elements": list(parts)}


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
