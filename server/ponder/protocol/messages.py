"""A conversation in the form of OpenAI's chats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ponder.protocol import history
from ponder.protocol.fields import NO_AUDIO, Empty, Lenient, Name, Off, or_say
from ponder.protocol.functions import NO_FUNCTIONS, Call

# Every list has a limit; that of a conversation is OpenAI's.
MOST_MESSAGES = 2048
MOST_PARTS = 1024  # of one message
MOST_CALLS = 1024  # of one message

_TEXT_PART = or_say(
    "this server reads text only, no images, audio or files; send parts of type text"
)
_BEGUN = or_say("this server begins every answer itself; leave it out")
_TEXT = or_say("this server reads text only; leave it out")
_THOUGHT = or_say("must be a string or a list of text parts")
_ROLE = or_say(
    "this server knows system, developer, user, assistant and tool messages; send one of them"
)


class Said(Lenient):
    """A message or a part of one. It refuses clients' fields that would change the answer."""

    prefix: Annotated[Off, _BEGUN] = None
    partial: Annotated[Off, _BEGUN] = None
    image: Annotated[None, _TEXT] = None
    images: Annotated[Empty | None, _TEXT] = None
    videos: Annotated[Empty | None, _TEXT] = None
    files: Annotated[Empty | None, _TEXT] = None
    attachments: Annotated[Empty | None, _TEXT] = None


class Part(Said):
    """A part of a message: a text, a refusal, or a thought of an assistant's."""

    type: Annotated[
        Literal["text", "refusal", "thinking", "redacted_thinking", "reasoning"], _TEXT_PART
    ]
    text: str | None = None
    refusal: str | None = None
    thinking: Annotated[str | list[dict[str, Any]], _THOUGHT] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Part:
        if self.type in ("text", "refusal") and getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} needs {self.type}")
        return self

    @property
    def said(self) -> str:
        return {"text": self.text, "refusal": self.refusal}.get(self.type) or ""

    @property
    def thought(self) -> str:
        if self.type in ("text", "refusal"):
            return ""
        if isinstance(self.thinking, list):  # Mistral's, of text parts
            return _joined(self.thinking, "text")
        return self.thinking or self.text or ""


def _joined(entries: Iterable[Any] | None, name: str) -> str:
    """The texts that a list's entries have under a name; clients keep other fields there, too."""
    found = (entry.get(name) for entry in entries or () if isinstance(entry, dict))
    return "".join(text for text in found if isinstance(text, str))


def _parts(content: Any) -> Any:
    """A string is one part of text: an error then names the part, not a branch of a union."""
    if isinstance(content, str):
        return [Part(type="text", text=content)]
    if isinstance(content, list):
        return content
    raise ValueError("must be a string or a list of text parts")


Content = Annotated[
    list[Part],
    Field(max_length=MOST_PARTS, fail_fast=True),
    BeforeValidator(_parts, json_schema_input_type=str | list[Part]),
]


class Message(Said):
    """One turn. The chat template gets the thought of an earlier assistant turn."""

    role: Annotated[Literal["system", "developer", "user", "assistant", "tool"], _ROLE]
    content: Content | None = None
    name: Name | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    thinking: str | None = None
    reasoning_details: Annotated[list[Any], Field(max_length=MOST_PARTS)] | None = None
    thinking_blocks: Annotated[list[Any], Field(max_length=MOST_PARTS)] | None = None
    refusal: str | None = None
    audio: Annotated[None, NO_AUDIO] = None
    function_call: Annotated[None, NO_FUNCTIONS] = None
    tool_calls: Annotated[list[Call], Field(max_length=MOST_CALLS, fail_fast=True)] | None = None
    tool_call_id: Name | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and self.role not in ("assistant", "tool"):
            raise ValueError(f"a {self.role} message needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message makes no tool_calls: leave them out")
        return self

    @property
    def text(self) -> str:
        return "".join(part.said for part in self.content or ()) or self.refusal or ""

    @property
    def thought(self) -> str:
        """The turn's thought, by the first of the clients' names for it that has one."""
        return (
            self.reasoning
            or self.reasoning_content
            or self.thinking
            or "".join(part.thought for part in self.content or ())
            or _joined(self.thinking_blocks, "thinking")
            or _joined(self.reasoning_details, "text")
        )

    def turn(self, called: Mapping[str, str]) -> history.Turn:
        """The message as chat templates know it; they have no `developer`.

        `called` are the names of the functions called before, by the calls' ids.
        """
        if self.role == "assistant":
            calls = [
                history.call(call.id, call.function.name, call.arguments)
                for call in self.tool_calls or ()
            ]
            turn = history.assistant(self.text, self.thought, calls)
        elif self.role == "tool":
            call_id = self.tool_call_id or ""
            return history.result(call_id, self.text, self.name or called.get(call_id))
        else:
            turn = {"role": self.role.replace("developer", "system"), "content": self.text}
        if self.name is not None:
            turn["name"] = self.name
        return turn


Conversation = Annotated[
    list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
]


def turns(messages: Iterable[Message]) -> list[history.Turn]:
    """The conversation as chat templates know it; a result has its function's name."""
    called: dict[str, str] = {}
    made = []
    for message in messages:
        called |= {call.id: call.function.name for call in message.tool_calls or () if call.id}
        made.append(message.turn(called))
    return made
