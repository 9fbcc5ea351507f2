"""A conversation, as OpenAI's chats write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ponder.protocol import history
from ponder.protocol.fields import NO_AUDIO, Empty, Name, Strict, or_say
from ponder.protocol.functions import NO_FUNCTIONS, Call

# Everything has a length; that of a conversation is OpenAI's.
MOST_MESSAGES = 2048
MOST_PARTS = 1024  # of one message
MOST_CALLS = 1024  # of one message

_TEXT_PART = or_say(
    "this server reads text only, no images, audio or files; send parts of type text"
)
_ROLE = or_say(
    "this server knows system, developer, user, assistant and tool messages; send one of them"
)


class TextPart(Strict):
    type: Annotated[Literal["text"], _TEXT_PART]
    text: str
    cache_control: Any = None  # Anthropic's and OpenRouter's: prefixes are cached anyway


def _parts(content: Any) -> Any:
    """A string is one part of text: an error then names the part, not a branch of a union."""
    if isinstance(content, str):
        return [TextPart(type="text", text=content)]
    if isinstance(content, list):
        return content
    raise ValueError("must be a string or a list of text parts")


Content = Annotated[
    list[TextPart],
    Field(max_length=MOST_PARTS, fail_fast=True),
    BeforeValidator(_parts, json_schema_input_type=str | list[TextPart]),
]


class Message(Strict):
    """One turn. `reasoning` on an earlier assistant turn is handed to the chat template."""

    role: Annotated[Literal["system", "developer", "user", "assistant", "tool"], _ROLE]
    content: Content | None = None
    name: Name | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    type: Literal["text", "message"] | None = None
    cache_control: Any = None
    # What clients write back when a response message is sent as history.
    refusal: str | None = None
    reasoning_details: Annotated[list[dict[str, Any]], Field(max_length=MOST_PARTS)] | None = None
    annotations: Empty | None = None
    audio: Annotated[None, NO_AUDIO] = None
    function_call: Annotated[None, NO_FUNCTIONS] = None
    tool_calls: Annotated[list[Call], Field(max_length=MOST_CALLS, fail_fast=True)] | None = None
    tool_call_id: Name | None = None

    @model_validator(mode="after")
    def _only_assistants_are_silent(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"a {self.role} message makes no tool_calls: leave them out")
        return self

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content or ()) or self.refusal or ""

    @property
    def thought(self) -> str:
        """What an assistant thought, by any of its names."""
        details = (entry.get("text") for entry in self.reasoning_details or ())
        said = "".join(text for text in details if isinstance(text, str))
        return self.reasoning or self.reasoning_content or said

    @property
    def turn(self) -> history.Turn:
        """The message as chat templates know it; they have no `developer`."""
        if self.role == "assistant":
            calls = [
                history.call(call.id, call.function.name, call.arguments)
                for call in self.tool_calls or ()
            ]
            turn = history.assistant(self.text, self.thought, calls)
        elif self.role == "tool":
            return history.result(self.tool_call_id or "", self.text, self.name)
        else:
            turn = {"role": self.role.replace("developer", "system"), "content": self.text}
        if self.name is not None:
            turn["name"] = self.name
        return turn


Conversation = Annotated[
    list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
]
