"""The replies of `/v1/messages`: messages, the events of their streams, and errors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, RootModel

from ponder.protocol.dialect import Refusal
from ponder.protocol.errors import ApiError
from ponder.protocol.response import PonderReport


class ThinkingBlock(BaseModel):
    """A thought. Sent back with its signature, it is the turn's thought even if it is empty."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str


class TextBlock(BaseModel):
    type: Literal["text"] = "text"
    text: str


class ToolUseBlock(BaseModel):
    """A call. With `stop_reason` "max_tokens", the last call's input may be truncated."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


ContentBlock = ThinkingBlock | TextBlock | ToolUseBlock
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class OutputTokensDetails(BaseModel):
    thinking_tokens: int


class MessageUsage(BaseModel):
    """Input and cache reads together are the prompt; output is thought and answer."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails


class AnthropicMessage(BaseModel):
    """The whole reply."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    ponder: PonderReport | None = None


class InputTokens(BaseModel):
    """All tokens of a prompt: those that a reply's `usage` counts as input or cache reads."""

    input_tokens: int


class MessageStart(BaseModel):
    """Begins a stream: a message without content, before its cache reads are known."""

    type: Literal["message_start"]
    message: AnthropicMessage


class Ping(BaseModel):
    type: Literal["ping"]


class ContentBlockStart(BaseModel):
    type: Literal["content_block_start"]
    index: int
    content_block: ContentBlock


class ThinkingDelta(BaseModel):
    type: Literal["thinking_delta"]
    thinking: str


class SignatureDelta(BaseModel):
    type: Literal["signature_delta"]
    signature: str


class TextDelta(BaseModel):
    type: Literal["text_delta"]
    text: str


class InputJsonDelta(BaseModel):
    type: Literal["input_json_delta"]
    partial_json: str


class ContentBlockDelta(BaseModel):
    type: Literal["content_block_delta"]
    index: int
    delta: ThinkingDelta | SignatureDelta | TextDelta | InputJsonDelta


class ContentBlockStop(BaseModel):
    type: Literal["content_block_stop"]
    index: int


class StopDelta(BaseModel):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(BaseModel):
    """Ends a message, with the reason and the total usage."""

    type: Literal["message_delta"]
    delta: StopDelta
    usage: MessageUsage
    ponder: PonderReport


class MessageStop(BaseModel):
    type: Literal["message_stop"]


class MessageEvent(
    RootModel[
        MessageStart
        | Ping
        | ContentBlockStart
        | ContentBlockDelta
        | ContentBlockStop
        | MessageDelta
        | MessageStop
    ]
):
    """One server-sent event; its line `event:` repeats its type."""


class AnthropicErrorBody(BaseModel):
    """`code` and `param` are Ponder's, as in the errors of its other endpoints."""

    type: str
    message: str
    code: str
    param: str | None = None


class AnthropicError(BaseModel):
    type: Literal["error"] = "error"
    error: AnthropicErrorBody
    request_id: str


_OVERLOADED = 529
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def refusal(error: ApiError, request_id: str) -> Refusal:
    """An error in Anthropic's shape; its status for an overloaded server is 529."""
    otherwise = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _TYPES.get(error.status, otherwise)
    said = AnthropicErrorBody(type=kind, message=str(error), code=error.code, param=error.param)
    body = AnthropicError(error=said, request_id=request_id)
    status = _OVERLOADED if error.status == 503 else error.status
    return Refusal(status, body.model_dump_json().encode())
