"""The table of dialects: where requests come, and in whose words.

A new endpoint is a file beside this one and a row here; `ponder.server` makes its route of it, and
`/openapi.json` its description.
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
"""What counts prompts, each below the path of its dialect."""


def dialect_at(path: str) -> Dialect:
    """The dialect of a path and of what is below it; elsewhere OpenAI's, as of all other routes."""
    below = (dialect for at, dialect in DIALECTS.items() if f"{path}/".startswith(f"{at}/"))
    return next(below, DIALECTS["/v1/chat/completions"])
