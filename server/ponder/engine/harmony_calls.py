"""Calls as gpt-oss writes them: a message whose header names the function.

    <|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1, "b": 2}<|call|>

Ponder reads headers by token ids before the parser sees them (`ponder.thought.harmony`), and gives
the parser `CALL`, the name and a line break, however the model spelt the header. vLLM's own parser
counts a call's arguments as a thought.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ponder.engine.grammars import check_strict
from ponder.engine.hermes import arguments_of
from ponder.engine.protocol import (
    CALL,
    AnswerParser,
    CallPart,
    EngineSetupError,
    Grammar,
    Tool,
    Vocabulary,
)

Part = Mapping[str, Any]

_SPECIAL = ("channel", "constrain", "end", "message", "start")


class Harmony:
    """Parses calls as they stream; its grammars are structural tags of xgrammar.

    A grammar begins with the header of the answer's message, which a closed thought leaves to the
    model: every request with tools has one, so that no answer thinks again. It names special tokens
    by their ids, since a model may spell them in plain characters, and each of them beside a text:
    xgrammar's cache (0.2) takes rules that differ in an id alone for the same.
    """

    name = "openai"
    headed = True

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
    >>> said, (begun, rest) = parser.feed(f'Let me see. {CALL}add\\n{{"a": 1}}', (), last=True)
    >>> said, begun.name, rest.arguments
    ('Let me see. ', 'add', '{"a": 1}')
    """

    def __init__(self) -> None:
        self._text = ""  # undecided text
        self._calls = 0
        self._open = False  # the last message is a call

    def feed(
        self, text: str, token_ids: Sequence[int], *, last: bool = False
    ) -> tuple[str, Sequence[CallPart]]:
        said, *messages = (self._text + text).split(CALL)
        self._text = ""
        if messages and "\n" not in messages[-1] and not last:  # half a name
            self._text = CALL + messages.pop()
        parts = [CallPart(self._calls - 1, arguments=said)] if self._open and said else []
        for message in messages:
            name, _, arguments = message.partition("\n")
            parts.append(CallPart(self._calls, f"call_{uuid.uuid4().hex[:24]}", name))
            if arguments:
                parts.append(CallPart(self._calls, arguments=arguments))
            self._calls += 1
        text = "" if self._open else said
        self._open = self._open or bool(messages)
        return text, parts
