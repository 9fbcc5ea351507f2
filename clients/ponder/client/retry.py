"""Decides which refusals are worth another try, and when, as OpenAI's clients do."""

from __future__ import annotations

import httpx

MAX_RETRIES = 2
_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


def pause(response: httpx.Response, attempt: int) -> float | None:
    """Seconds to wait after the `attempt`-th try, counted from 0; None where it is pointless.

    The server's word goes first: `x-should-retry: false`, and `Retry-After` up to a minute.
    """
    if response.status_code not in _STATUSES or response.headers.get("x-should-retry") == "false":
        return None
    try:
        wait = float(response.headers.get("retry-after", ""))
    except ValueError:  # none, or a date
        wait = _FIRST_PAUSE_S * 2**attempt
    return wait if 0 <= wait <= _LONGEST_PAUSE_S else None
