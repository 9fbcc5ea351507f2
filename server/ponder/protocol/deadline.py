"""Reads when a request's answer is due."""

from __future__ import annotations

from collections.abc import Mapping

from ponder.protocol.errors import ApiError, quoted
from ponder.protocol.fields import MOST_MILLISECONDS

HEADER = "x-ponder-deadline-ms"


def read_deadline(headers: Mapping[str, str], deadline_ms: int | None) -> int | None:
    """Milliseconds from the arrival of the request: the header's, or the body's `deadline_ms`.

    Raises 400 for a header that is no such number, and for two values that disagree.
    """
    said = headers.get(HEADER)
    if said is None:
        return deadline_ms
    written = said.strip()
    number = int(written) if written.isascii() and written.isdigit() and len(written) < 16 else 0
    if not 1 <= number <= MOST_MILLISECONDS:
        raise ApiError(
            400,
            "invalid_request",
            f"{HEADER} must be a whole number of milliseconds from 1 to {MOST_MILLISECONDS}, not "
            f"{quoted(said)}",
            param=HEADER,
        )
    if deadline_ms not in (None, number):
        raise ApiError(
            400,
            "invalid_request",
            f"{HEADER} is {number} and `deadline_ms` is {deadline_ms}: send one of them",
            field="deadline_ms",
        )
    return number
