"""Who may use the server: the keys that its operator gave out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from pydantic import SecretStr

from ponder.protocol.errors import ApiError

_CHALLENGE = {"www-authenticate": "Bearer"}
EVERYBODY = ""
"""The one tenant of a server without keys."""


def authorise(keys: Sequence[SecretStr], header: str | None) -> str:
    """The tenant of the key in the header, under a name that does not reveal the key.

    Compares in constant time. Raises 401 for a key that is not among `keys`.
    """
    if not keys:
        return EVERYBODY
    scheme, _, rest = (header or "").partition(" ")
    given = rest.strip()
    matches = [hmac.compare_digest(given.encode(), key.get_secret_value().encode()) for key in keys]
    if scheme.lower() == "bearer" and any(matches):
        return hashlib.sha256(given.encode()).hexdigest()
    if scheme.lower() == "bearer" and given:
        message = "this API key is not one of this server's: check it, or ask its operator for one"
    else:
        message = (
            "this server needs an API key: send it as `Authorization: Bearer KEY` or "
            "`x-api-key: KEY`"
        )
    raise ApiError(401, "invalid_api_key", message, headers=_CHALLENGE)
