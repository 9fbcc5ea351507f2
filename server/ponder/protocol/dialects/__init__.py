"""The table of dialects, by the path of their endpoints.

A new endpoint is a file beside this one and a row here; `ponder.server` makes a route from the row,
and `/openapi.json` describes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ponder.protocol.dialect import Counter, Dialect
from ponder.protocol.dialects.chat import ChatCompletions
from ponder.protocol.dialects.completions import Completions
from ponder.protocol.dialects.messages import AnthropicMessages, CountTokens
from ponder.protocol.dialects.responses import CountResponseTokens, Responses

DIALECTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/messages": AnthropicMessages(),
    "/v1/responses": Responses(),
}
COUNTERS: Mapping[str, Counter] = {
    "/v1/messages/count_tokens": CountTokens(),
    "/v1/responses/input_tokens": CountResponseTokens(),
}
"""Endpoints that count prompts, each below the path of its dialect."""


def dialect_at(path: str) -> Dialect:
    """The dialect of a path or of a path above it; OpenAI's chat dialect for all other routes."""
    below = (dialect for at, dialect in DIALECTS.items() if f"{path}/".startswith(f"{at}/"))
    return next(below, DIALECTS["/v1/chat/completions"])
