"""The body of a chat request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Messages = str | Sequence[Mapping[str, Any]]
Budget = int | Literal["auto"]
"""Thinking tokens, -1 for no limit, or what the model's calibrated curve says."""


class ChatOptions(TypedDict, total=False):
    """Fields of `ponder.protocol.dialects.chat`'s request beyond model, messages and budget."""

    reasoning_effort: str
    include_reasoning: bool
    ponder: Mapping[str, Any]
    max_completion_tokens: int
    n: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    seed: int
    stop: str | Sequence[str]
    logprobs: bool
    top_logprobs: int
    stream_options: Mapping[str, bool]


def chat_body(
    messages: Messages, *, model: str, budget: Budget | None, stream: bool, options: ChatOptions
) -> dict[str, Any]:
    """What is left out here stays the server's default; the server checks what is not."""
    body: dict[str, Any] = {**options, "model": model, "stream": stream}
    body["messages"] = (
        [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    )
    if budget is not None:
        body["thinking_token_budget"] = budget
    return body
