"""What a request says of the conversation that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping

HEADER = "x-ponder-conversation"


def read_conversation(
    headers: Mapping[str, str], scope: str | None, user: str | None
) -> str | None:
    """The header, else `ponder.scope`, else `user`; None where the request stands alone.

    Prefixed with where it was said, so that a user and a scope of one name are two.
    """
    said = (("header", headers.get(HEADER)), ("scope", scope), ("user", user))
    return next((f"{place}:{name}" for place, name in said if name), None)
