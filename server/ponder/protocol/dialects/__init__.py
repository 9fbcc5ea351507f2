"""The table of dialects: where requests come, and in whose words.

A new endpoint is a file beside this one and a row here; `ponder.server` makes its route of it, and
`/openapi.json` its description.
"""

from __future__ import annotations

from collections.abc import Mapping

from ponder.protocol.dialect import Dialect
from ponder.protocol.dialects.chat import ChatCompletions
from ponder.protocol.dialects.completions import Completions
from ponder.protocol.dialects.responses import Responses

DIALECTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/responses": Responses(),
}


def dialect_at(path: str) -> Dialect:
    """The dialect of a path; elsewhere OpenAI's, in which all other routes speak."""
    return DIALECTS.get(path, DIALECTS["/v1/chat/completions"])
