"""Makes turns as chat templates take them, for all dialects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Turn = dict[str, Any]


def read_arguments(arguments: str) -> dict[str, Any] | None:
    """The object that a call's arguments are; None where they are no JSON object.

    A model may write half of a surrogate pair, which no UTF-8 can spell; it becomes "?".

        >>> read_arguments('{"a": "6 \\\\ud83d"}'), read_arguments('{"a": ')
        ({'a': '6 ?'}, None)
    """
    try:
        spelt = json.dumps(json.loads(arguments or "{}"), ensure_ascii=False, allow_nan=False)
        read = json.loads(spelt.encode(errors="replace"))
    except (ValueError, RecursionError):  # no JSON, or nested too deeply to parse
        return None
    return read if isinstance(read, dict) else None


def call(call_id: str, name: str, arguments: str) -> Mapping[str, Any]:
    """A call of an earlier turn; templates read its arguments as an object.

    Arguments that are no object, as of a truncated call, become an empty one: refusing them would
    end the conversation for good.

        >>> call("call_1", "add", '{"a": 1}')["function"]
        {'name': 'add', 'arguments': {'a': 1}}
    """
    function = {"name": name, "arguments": read_arguments(arguments) or {}}
    return {"id": call_id, "type": "function", "function": function}


def assistant(text: str, thought: str = "", calls: Sequence[Mapping[str, Any]] = ()) -> Turn:
    """An assistant's turn: its thought, its text and its calls."""
    turn: Turn = {"role": "assistant", "content": text}
    if thought:
        turn["reasoning_content"] = thought
    if calls:
        turn["tool_calls"] = list(calls)
    return turn


def result(call_id: str, text: str, name: str | None = None) -> Turn:
    """The turn with a called function's result."""
    turn: Turn = {"role": "tool", "tool_call_id": call_id, "content": text}
    if name is not None:
        turn["name"] = name
    return turn
