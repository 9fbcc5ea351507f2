"""Calls as Hermes and Qwen3 write them, for engines that have no parsers of their own.

<tool_call>
{"name": "add", "arguments": {"a": 1, "b": 2}}
</tool_call>
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ponder.engine.grammars import check_strict, holds
from ponder.engine.protocol import AnswerParser, CallPart, Grammar, Tool

BEGIN, END = "<tool_call>", "</tool_call>"
_JSON = json.JSONDecoder()
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')


class Hermes:
    """Parses the syntax as it streams; its grammars are structural tags of xgrammar."""

    headed = False

    def parsers(self, tools: Sequence[Tool]) -> Callable[[], AnswerParser]:
        return HermesParser

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> Grammar | None:
        if not required and not any(tool.strict for tool in tools):
            return None
        for tool in tools:
            check_strict(tool)
        tags = [
            {
                "type": "tag",
                "begin": f'{BEGIN}\n{{"name": {json.dumps(tool.name)}, "arguments": ',
                "content": arguments_of(tool),
                "end": f"}}\n{END}",
            }
            for tool in tools
        ]
        form = {
            "type": "triggered_tags",
            "triggers": [BEGIN],
            "tags": tags,
            "at_least_one": required,
            "stop_after_first": not several,
        }
        return Grammar("structural_tag", json.dumps({"type": "structural_tag", "format": form}))

    def beside_calls(self, form: Mapping[str, Any]) -> Mapping[str, Any]:
        return form


def arguments_of(tool: Tool) -> Mapping[str, Any]:
    """A tag's rule for a call's arguments: any object where no grammar enforces the tool's own.

    At most one blank stands in a place: a model may write blanks without end.
    """
    parameters = dict(tool.parameters)
    schema = parameters if holds(parameters) else {"type": "object"}
    return {"type": "json_schema", "json_schema": schema, "style": "json", "max_whitespace_cnt": 1}


class HermesParser:
    """Reads one answer.

    >>> parser = HermesParser()
    >>> text = 'Let me see. <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    >>> said, (begun, rest) = parser.feed(text, (), last=True)
    >>> said, begun.name, rest.arguments
    ('Let me see. ', 'add', '{"a": 1}')
    """

    def __init__(self) -> None:
        self._text = ""  # undecided text
        self._inside = False
        self._calls = 0  # calls that have a name
        self._arguments: str | None = None  # of the current call, once it has a name

    def feed(
        self, text: str, token_ids: Sequence[int], *, last: bool = False
    ) -> tuple[str, Sequence[CallPart]]:
        self._text += text
        said, parts = "", list[CallPart]()
        while True:
            before, found, after = (
                self._inner(last) if self._inside else self._text.partition(BEGIN)
            )
            if not found:
                break
            if self._inside:
                parts += self._call(before, ended=True)
            else:
                said += before
            self._text, self._inside = after, not self._inside
        if self._inside:
            parts += self._call(self._text, ended=last)
            return said, parts
        kept = 0 if last else _half(self._text, BEGIN)
        said += self._text[: len(self._text) - kept]
        self._text = self._text[len(self._text) - kept :]
        return said, parts

    def _inner(self, last: bool) -> tuple[str, str, str]:
        """The text inside a call, its end marker, and the text behind: a string may hold another.

        Arguments that are no JSON end at the first marker, which is known at the answer's end.
        """
        size = 0
        while (at := self._text.find(END, size)) >= 0:
            size = at + len(END)
            head = _HEAD.match(self._text[:at])
            if head is None or _end(self._text[head.end() : at]) is not None:
                return self._text[:at], END, self._text[size:]
        return self._text.partition(END) if last else (self._text, "", "")

    def _call(self, text: str, *, ended: bool) -> Iterator[CallPart]:
        """The parts of a call that are certain: the call's last brace is not in its arguments."""
        if (head := _HEAD.match(text)) is None:
            return
        written = text[head.end() :]
        if (end := _end(written)) is not None:
            written = written[:end]
        elif not ended:
            written = written[: len(written) - _half(written, END)].rstrip("} \n")
        if self._arguments is None:
            name = _name(head[1])
            yield CallPart(self._calls, f"call_{uuid.uuid4().hex[:24]}", name)
            self._calls, self._arguments = self._calls + 1, ""
        if len(written) > len(self._arguments):
            yield CallPart(self._calls - 1, arguments=written[len(self._arguments) :])
            self._arguments = written
        if ended:
            self._arguments = None


def _end(written: str) -> int | None:
    """Where the object at the beginning ends; None if it has no end, as in a truncated call."""
    if written.startswith("{"):
        with suppress(ValueError, RecursionError):
            return _JSON.raw_decode(written)[1]
    return None


def _name(quoted: str) -> str:
    """A name as it is written in quotation marks, also with an escape that JSON does not know."""
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted[1:-1]


def _half(text: str, marker: str) -> int:
    """How many of the last characters may begin the marker."""
    return next(n for n in range(len(marker) - 1, -1, -1) if text.endswith(marker[:n]))
