"""What a request says of the conversation that it belongs to."""

from __future__ import annotations

from ponder.protocol.request import ChatCompletionRequest

HEADER = "x-ponder-conversation"


def read_conversation(request: ChatCompletionRequest, header: str | None) -> str | None:
    """The header, else `ponder.scope`, else `user`; None where the request stands alone.

    Prefixed with where it was said, so that a user and a scope of one name are two.
    """
    said = (("header", header), ("scope", request.ponder.scope), ("user", request.user))
    return next((f"{place}:{name}" for place, name in said if name), None)
