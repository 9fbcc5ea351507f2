"""Reads the conversation that a request belongs to."""

from __future__ import annotations

from collections.abc import Mapping

HEADER = "x-ponder-conversation"


def read_conversation(
    headers: Mapping[str, str], scope: str | None, user: str | None
) -> str | None:
    """The header, else `ponder.scope`, else `user`; None for a request without a conversation.

    The result begins with its source, so that a user and a scope of the same name differ.
    """
    said = (("header", headers.get(HEADER)), ("scope", scope), ("user", user))
    return next((f"{place}:{name}" for place, name in said if name), None)
