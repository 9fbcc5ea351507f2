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
_SPECIAL = ("<|channel|>", "<|constrain|>", "<|end|>", "<|message|>", "<|start|>")
_ANYTHING = {"type": "any_text"}


class Harmony:
    """Parses calls as they stream; its grammars are structural tags of xgrammar.

    A grammar begins with the header of the answer's message, which a closed thought leaves to the
    model: every request with tools has one, so that no answer thinks again. It names special tokens
    by their ids, since a model may spell them in ordinary characters.
    """

    name = "openai"

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Raises `EngineSetupError` for a vocabulary without harmony's special tokens."""
        ids = {text: vocabulary.encode(text) for text in _SPECIAL}
        if missing := [text for text, found in ids.items() if len(found) != 1]:
            raise EngineSetupError(
                f"--tool-parser {self.name} is gpt-oss's: this model has no token {missing[0]}"
            )
        self._ids = {text: found[0] for text, found in ids.items()}

    def parsers(self, tools: Sequence[Tool]) -> Callable[[], AnswerParser]:
        return HarmonyParser

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> Grammar:
        for tool in tools:
            check_strict(tool)
        calls = [
            self._parts("<|channel|>", f"commentary to=functions.{tool.name} ", "<|constrain|>")
            + self._parts("json", "<|message|>", arguments_of(tool))
            for tool in tools
        ]
        message, end = self._parts("<|message|>", "<|end|>")
        said = {"type": "tag", "begin": message, "content": _ANYTHING, "end": end}
        preamble = self._parts("<|channel|>", "commentary", said, "<|start|>", "assistant")
        then = [*map(_sequence, calls), *([] if required else [self.beside_calls(_ANYTHING)])]
        form = [{"type": "or", "elements": then}]
        if not required:
            form = [{"type": "optional", "content": _sequence(preamble)}, *form]
        tag = {"type": "structural_tag", "format": _sequence(form)}
        return Grammar("structural_tag", json.dumps(tag))

    def beside_calls(self, form: Part) -> Part:
        return _sequence(self._parts("<|channel|>", "final", "<|message|>", form))

    def _parts(self, *parts: str | Part) -> list[Part]:
        """Rules for these parts: special tokens, other texts, and rules as they are."""
        return [self._text(part) if isinstance(part, str) else part for part in parts]

    def _text(self, text: str) -> Part:
        if text in self._ids:
            return {"type": "token", "token": self._ids[text]}
        return {"type": "const_string", "value": text}


def _sequence(parts: Sequence[Part]) -> Part:
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
