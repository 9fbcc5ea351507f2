"""Limits log lines that anybody on the network can cause: at most one of a kind in a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping


class Rarely:
    """Warnings of a bounded number of kinds, at most one of each in `seconds`."""

    def __init__(self, logger: logging.Logger, seconds: float = 10.0) -> None:
        self._logger = logger
        self._seconds = seconds
        self._kinds: dict[str, tuple[float, int]] = {}  # last logged at; left out since

    def warning(
        self,
        kind: str,
        message: str,
        *values: object,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Log the warning, with the number of those like it that were left out before."""
        now = time.monotonic()
        said_at, unsaid = self._kinds.get(kind, (-self._seconds, 0))
        if now - said_at < self._seconds:
            self._kinds[kind] = (said_at, unsaid + 1)
            return
        self._kinds[kind] = (now, 0)
        if unsaid:
            message += " (and %d more like it since the last such line)"
            values += (unsaid,)
        self._logger.warning(message, *values, extra={"fields": dict(fields or {})})
