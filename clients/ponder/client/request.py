"""The body of a chat request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Messages = str | Sequence[Mapping[str, Any]]
Budget = int | Literal["auto"]
"""Thinking tokens, -1 for no limit, or "auto" for the model's calibrated curve."""


class ChatOptions(TypedDict, total=False):
    """Fields of `ponder.protocol.dialects.chat`'s request beyond model, messages and budget.

    Two are `ponder`'s: `deadline_ms`, milliseconds until the answer is due, and `strategy`: how
    several thoughts on one budget give one answer. Other systems' names of the budget are left out,
    and all fields that change nothing but `metadata`.
    """

    deadline_ms: int
    strategy: Mapping[str, Any]
    reasoning_effort: str
    enable_thinking: bool
    include_reasoning: bool
    ponder: Mapping[str, Any]
    max_completion_tokens: int
    max_tokens: int
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
    stop_token_ids: Sequence[int]
    min_tokens: int
    ignore_eos: bool
    logit_bias: Mapping[int, float] | Mapping[str, float]
    logprobs: bool
    top_logprobs: int
    tools: Sequence[Mapping[str, Any]]
    tool_choice: Literal["auto", "none", "required"] | Mapping[str, Any]
    parallel_tool_calls: bool
    response_format: Mapping[str, Any]
    structured_outputs: Mapping[str, Any]
    chat_template_kwargs: Mapping[str, Any]
    stream_options: Mapping[str, bool]
    cache_salt: str
    metadata: Mapping[str, str]
    user: str


def chat_body(
    messages: Messages, *, model: str, budget: Budget | None, stream: bool, options: ChatOptions
) -> dict[str, Any]:
    """The body of a request. Fields left out keep the server's defaults; the server checks all."""
    body: dict[str, Any] = {**options, "model": model, "stream": stream}
    for name in ("deadline_ms", "strategy"):
        if (own := body.pop(name, None)) is not None:
            body["ponder"] = {**body.get("ponder", {}), name: own}
    body["messages"] = (
        [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    )
    if budget is not None:
        body["thinking_token_budget"] = budget
    return body


def naming(name: str | None) -> dict[str, str]:
    """The header that names a request to the server before its reply has an id.

    Raises `ValueError` for a name that a header cannot carry.
    """
    if name is None:
        return {}
    if not name.isascii() or not name.isprintable() or name != name.strip() or not name:
        raise ValueError(f"{name!r} names no request: a header carries only printable ASCII")
    return {"x-client-request-id": name}
