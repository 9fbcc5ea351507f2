"""Who may use the server: the keys that its operator gave out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from pydantic import SecretStr

from ponder.protocol.errors import ApiError

_CHALLENGE = {"www-authenticate": "Bearer"}


def authorise(keys: Sequence[SecretStr], header: str | None) -> str | None:
    """Whose key the header carries: its digest, or None where the server wants none.

    Keys are compared in constant time. Raises 401 for one that is not among them.
    """
    if not keys:
        return None
    scheme, _, rest = (header or "").partition(" ")
    given = rest.strip()
    matches = [hmac.compare_digest(given.encode(), key.get_secret_value().encode()) for key in keys]
    if scheme.lower() == "bearer" and any(matches):
        return hashlib.sha256(given.encode()).hexdigest()
    if scheme.lower() == "bearer" and given:
        message = "this API key is none of this server's: check it, or ask its operator for one"
    else:
        message = (
            "this server wants an API key: send it as `Authorization: Bearer KEY` or "
            "`x-api-key: KEY`"
        )
    raise ApiError(401, "invalid_api_key", message, headers=_CHALLENGE)
