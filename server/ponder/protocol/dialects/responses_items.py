"""The input of `/v1/responses`: items, which become turns.

Clients send back items that servers wrote, so unknown fields of an item are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ponder.protocol.fields import Name, or_say
from ponder.protocol.history import Turn, assistant, call, result
from ponder.protocol.messages import MOST_PARTS
from ponder.protocol.seal import unseal

MOST_ITEMS = 8192

_TEXT_PART = or_say(
    "this server reads text only, no images, audio or files; send parts of type input_text"
)
_ROLE = or_say("this server knows system, developer, user and assistant messages; send one of them")
_ITEM = or_say(
    "this server keeps no items and runs no tools itself; send items of type message, reasoning, "
    "function_call, function_call_output, custom_tool_call or custom_tool_call_output"
)


class Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}

    def check_has(self, *names: str) -> None:
        """Raise `ValueError` for the first of the fields that is missing; its type needs them."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"one of type {getattr(self, 'type')} needs {name}: add it")  # noqa: B009


class InputPart(Lenient):
    type: Annotated[
        Literal["input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text"],
        _TEXT_PART,
    ]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        self.check_has("refusal" if self.type == "refusal" else "text")
        return self

    @property
    def said(self) -> str:
        return self.text or self.refusal or ""


def _parts(content: Any) -> Any:
    """A string is one part of text: an error then names the part, not a branch of a union."""
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    if isinstance(content, list):
        return content
    raise ValueError("must be a string or a list of text parts")


Parts = Annotated[
    list[InputPart],
    Field(max_length=MOST_PARTS, fail_fast=True),
    BeforeValidator(_parts, json_schema_input_type=str | list[InputPart]),
]


def _text(parts: Iterable[InputPart] | None) -> str:
    return "".join(part.said for part in parts or ())


def flat(name: str, namespace: str | None) -> str:
    """The model's name for a name within a namespace."""
    return name if namespace is None else f"{namespace}__{name}"


class InputItem(Lenient):
    """One item of the conversation; its `type` says which fields it has."""

    type: Annotated[
        Literal[
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
        ],
        _ITEM,
    ] = "message"
    role: Annotated[Literal["system", "developer", "user", "assistant"] | None, _ROLE] = None
    content: Parts | None = None
    summary: Parts | None = None
    encrypted_content: str | None = None
    call_id: Name | None = None
    name: Name | None = None
    namespace: Name | None = None
    arguments: str | None = None
    input: str | None = None
    output: Parts | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        self.check_has(*_NEEDS[self.type])
        if self.type == "message" and self.role != "assistant":
            self.check_has("content")
        return self

    @property
    def thought(self) -> str:
        """The thought of a reasoning item: its text, else the sealed one, else the summary."""
        return _text(self.content) or unseal(self.encrypted_content or "") or _text(self.summary)

    @property
    def called(self) -> str:
        return flat(self.name or "", self.namespace)


_NEEDS: Mapping[str, tuple[str, ...]] = {
    "message": ("role",),
    "reasoning": (),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id",),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id",),
}


def _items(given: Any) -> Any:
    """A string is one message of a user."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if isinstance(given, list):
        return given
    raise ValueError("must be a string or a list of items")


_List = Annotated[list[InputItem], Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)]
Items = Annotated[_List, BeforeValidator(_items, json_schema_input_type=str | _List)]


class _History:
    """Reads items into turns."""

    def __init__(self, instructions: str | None) -> None:
        self.turns: list[Turn] = []
        self._system = [instructions] if instructions else []
        self._late: list[str] = []  # system texts after the beginning of the conversation
        self._names: dict[str, str] = {}  # names of called functions, by call id
        self._said: list[InputItem] = []  # items of the current assistant's turn

    def read(self, item: InputItem) -> None:
        if item.type in ("reasoning", "function_call", "custom_tool_call"):
            self._assistant(item)
        elif item.type in ("function_call_output", "custom_tool_call_output"):
            self._end_assistant()
            call_id = item.call_id or ""
            self.turns.append(result(call_id, _text(item.output), self._names.get(call_id)))
        elif item.role == "assistant":
            self._assistant(item)
        elif item.role == "user":
            self._end_assistant()
            self._user(_text(item.content))
        elif self.turns or self._said:
            self._late.append(_text(item.content))
        else:
            self._system.append(_text(item.content))

    def end(self) -> list[Turn]:
        self._end_assistant()
        if self._late:
            self._user()
        system = "\n\n".join(self._system)
        return [{"role": "system", "content": system}, *self.turns] if system else self.turns

    def _user(self, *texts: str) -> None:
        self.turns.append({"role": "user", "content": "\n\n".join([*self._late, *texts])})
        self._late.clear()

    def _assistant(self, item: InputItem) -> None:
        if self._late and not self._said:
            self._user()
        self._said.append(item)
        if item.call_id is not None:
            self._names[item.call_id] = item.called

    def _end_assistant(self) -> None:
        thoughts, texts, calls = [], [], []
        for item in self._said:
            if item.type == "reasoning":
                thoughts.append(item.thought)
            elif item.type == "message":
                texts.append(_text(item.content))
            else:
                arguments = item.arguments
                if item.type == "custom_tool_call":
                    arguments = json.dumps({"input": item.input})
                calls.append(call(item.call_id or "", item.called, arguments or ""))
        if self._said:
            thought = "\n\n".join(filter(None, thoughts))
            self.turns.append(assistant("".join(texts), thought, calls))
            self._said.clear()


def turns(instructions: str | None, items: Iterable[InputItem]) -> list[Turn]:
    """The conversation as chat templates take it.

    An assistant's consecutive items are one turn. The instructions and the first messages, if a
    system's or developer's, are one system turn. Later system or developer messages precede the
    text of the next user turn, or become a user turn: few templates take a later system turn, and
    moving the text to the front would invalidate the prefix cache.
    """
    history = _History(instructions)
    for item in items:
        history.read(item)
    return history.end()
