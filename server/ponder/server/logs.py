"""Log lines, as text for people or as JSON for machines; never what was asked or said."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the response that the current task works on."""


class JsonFormatter(logging.Formatter):
    """One object a line; `extra={"fields": …}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            entry["request_id"] = current
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(form: Literal["text", "json"]) -> None:
    """Text tells of what is wrong; JSON also has a line for every request."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
        logging.getLogger("ponder").setLevel(logging.INFO)
