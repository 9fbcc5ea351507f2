"""The conversation of `/v1/messages`: content blocks, made into turns for templates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ponder.protocol.errors import cut
from ponder.protocol.fields import Name, Strict, or_say
from ponder.protocol.history import Turn, assistant, call, result
from ponder.protocol.messages import MOST_MESSAGES, MOST_PARTS
from ponder.protocol.seal import unseal

_BILLING = "x-anthropic-billing-header:"
"""Begins a system block that differs in every request, and would defeat the prefix cache."""
_ROLE = or_say("this server knows user, assistant and system messages; send one of them")
_TEXT_ONLY = "this server reads text only, no images or documents; send blocks of type text"
_OF_ANTHROPICS_TOOLS = (
    "this server runs no tools of its own, and reads no {kind} blocks of other servers' tools; "
    "leave the call and its result out, or send what it found in a block of type text"
)
_UNKNOWN = "this server reads no {kind} blocks; leave it out, or send its text in one of type text"


_PICTURES = ("image", "document", "container_upload")


def _readable(*kinds: str) -> BeforeValidator:
    """Refuses blocks of other types than `kinds` by their names, with the remedy for each."""

    def check(block: Any) -> Any:
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str) or kind in kinds:
            return block
        said = _UNKNOWN
        if kind in _PICTURES:
            said = ", ".join([_TEXT_ONLY, *kinds[1:-1]]) + f" or {kinds[-1]}" * (len(kinds) > 1)
        elif kind.endswith(("_tool_use", "_tool_result")):
            said = _OF_ANTHROPICS_TOOLS
        raise PydanticCustomError("not_supported", said, {"kind": cut(kind)})

    return BeforeValidator(check)


class Block(Strict):
    """A content block. Unknown fields change nothing, and are not read."""

    model_config = ConfigDict(extra="ignore")

    type: str


class TextBlockParam(Block):
    type: Annotated[Literal["text"], or_say(_TEXT_ONLY)]
    text: str


def _blocks(content: Any) -> Any:
    """A string is one block of text."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list):
        return content
    raise ValueError("must be a string or a list of content blocks")


_SOME = Field(max_length=MOST_PARTS, fail_fast=True)
Texts = Annotated[
    list[Annotated[TextBlockParam, _readable("text")]],
    _SOME,
    BeforeValidator(_blocks, json_schema_input_type=str | list[TextBlockParam]),
]


def joined(texts: Iterable[TextBlockParam]) -> str:
    """The text of a client's blocks, as paragraphs."""
    return "\n\n".join(block.text for block in texts if block.text)


class ThinkingBlockParam(Block):
    """A thought of an earlier turn. If it was not shown, its signature holds it."""

    type: Literal["thinking"]
    thinking: str = ""
    signature: str = ""

    @property
    def thought(self) -> str:
        return self.thinking or unseal(self.signature)


class RedactedThinkingBlockParam(Block):
    """A thought that another server encrypted; this server cannot read it."""

    type: Literal["redacted_thinking"]


class ToolUseBlockParam(Block):
    type: Literal["tool_use"]
    id: Name
    name: Name
    input: dict[str, Any] = Field(default_factory=dict)


class ToolResultBlockParam(Block):
    """The result of a call; `is_error` says that the call failed."""

    type: Literal["tool_result"]
    tool_use_id: Name
    content: Texts = Field(default_factory=list)
    is_error: StrictBool = False

    @property
    def text(self) -> str:
        text = joined(self.content)
        told = not self.is_error or text.lower().startswith("error")
        return text if told else f"Error: {text}".rstrip()


_FITTING: Mapping[str, tuple[type[Block], ...]] = {
    "system": (TextBlockParam,),
    "user": (TextBlockParam, ToolResultBlockParam),
    "assistant": (
        TextBlockParam,
        ThinkingBlockParam,
        RedactedThinkingBlockParam,
        ToolUseBlockParam,
    ),
}
"""The kinds of block that messages of each role may have."""


def _tag(block: Any) -> str | None:
    """The block's type in brackets, as pydantic writes it into the location of a mistake."""
    kind = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
    return f"[{kind}]" if isinstance(kind, str) else None


AnyBlock = Annotated[
    Annotated[TextBlockParam, Tag("[text]")]
    | Annotated[ThinkingBlockParam, Tag("[thinking]")]
    | Annotated[RedactedThinkingBlockParam, Tag("[redacted_thinking]")]
    | Annotated[ToolUseBlockParam, Tag("[tool_use]")]
    | Annotated[ToolResultBlockParam, Tag("[tool_result]")],
    Discriminator(
        _tag,
        custom_error_type="not_supported",
        custom_error_message=f"{_TEXT_ONLY}, thinking, redacted_thinking, tool_use or tool_result",
    ),
    _readable("text", "thinking", "redacted_thinking", "tool_use", "tool_result"),
]


class MessageParam(Strict):
    """One message. Fields beside role and content change nothing, and are not read."""

    model_config = ConfigDict(extra="ignore")

    role: Annotated[Literal["user", "assistant", "system"], _ROLE]
    content: Annotated[
        list[AnyBlock],
        _SOME,
        BeforeValidator(_blocks, json_schema_input_type=str | list[AnyBlock]),
    ]

    @model_validator(mode="after")
    def _blocks_fit(self) -> MessageParam:
        for block in self.content:
            if not isinstance(block, _FITTING[self.role]):
                of = "a user" if isinstance(block, ToolResultBlockParam) else "an assistant"
                raise ValueError(
                    f"{block.type} blocks do not belong in a message of role {self.role}: send "
                    f"them in {of} message"
                )
        return self


Messages = Annotated[
    list[MessageParam], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)
]


def turns(system: Sequence[TextBlockParam], messages: Sequence[MessageParam]) -> list[Turn]:
    """A conversation as chat templates take it.

    Consecutive messages of one side are one turn. Only system messages at the beginning are the
    system turn, since templates take no later ones: those become text of the user's turn.
    """
    said = [block for block in system if not _billing(block)]
    early = 0
    while early < len(messages) and messages[early].role == "system":
        said += [block for block in messages[early].content if isinstance(block, TextBlockParam)]
        early += 1
    prompt = joined(said)
    made: list[Turn] = [{"role": "system", "content": prompt}] if prompt else []
    names: dict[str, str] = {}
    for assistants, side in groupby(messages[early:], lambda message: message.role == "assistant"):
        blocks = [block for message in side for block in message.content]
        if assistants:
            names |= {block.id: block.name for block in blocks if block.type == "tool_use"}
            made.append(_assistants(blocks))
        else:
            made += _users(blocks, names)
    return made


def _billing(block: TextBlockParam) -> bool:
    return block.text.startswith(_BILLING) and "\n" not in block.text.strip()


def _assistants(blocks: Sequence[AnyBlock]) -> Turn:
    """An assistant's turn; the parts of the model's own text are joined without a gap."""
    thoughts = [block.thought for block in blocks if block.type == "thinking"]
    return assistant(
        "".join(block.text for block in blocks if block.type == "text"),
        "\n\n".join(filter(None, thoughts)),
        [
            call(block.id, block.name, json.dumps(block.input))
            for block in blocks
            if block.type == "tool_use"
        ],
    )


def _users(blocks: Sequence[AnyBlock], names: Mapping[str, str]) -> list[Turn]:
    """Turns of the calls' results, then of the user's text. `names` are those of earlier calls."""
    results = [block for block in blocks if block.type == "tool_result"]
    text = joined(block for block in blocks if block.type == "text")
    made = [result(it.tool_use_id, it.text, names.get(it.tool_use_id)) for it in results]
    if text or not results:
        made.append({"role": "user", "content": text})
    return made
