"""Log lines, as text for people or as JSON for machines; never prompts or answers."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the response that the current task works on."""

process_log = logging.getLogger("ponder")
"""The process about itself: `ponder: stopped`. CRITICAL is an error that ends its start."""

_noted: ContextVar[dict[str, object] | None] = ContextVar("noted", default=None)
_requests = logging.getLogger("ponder.server.requests")
_QUIET = frozenset(
    {"/healthz", "/readyz", "/health", "/ping", "/metrics"}
)  # probes would drown everything else
_IN_MESSAGE = frozenset({"method", "path", "status"})
_LONGEST_PATH = 100
_NOBODY_READS = 499


class TextFormatter(logging.Formatter):
    """A line with its time, level and fields; `extra={"more": …}` is for people alone."""

    def format(self, record: logging.LogRecord) -> str:
        own = record.name == process_log.name
        line = ("ponder: " if own else "") + record.getMessage()
        if own and record.levelno >= logging.CRITICAL:
            return line  # in the form of a command's error
        level = f"{record.levelname} " if record.levelno > logging.INFO else ""
        line = f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')} {level}{line}"
        line += "".join(
            f" {name}={_plain(value)}"
            for name, value in getattr(record, "fields", {}).items()
            if value is not None and name not in _IN_MESSAGE
        )
        line += getattr(record, "more", "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


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
    """Send all log lines to the present standard error.

    Redirecting standard error later moves the output of libraries, not the log.
    """
    console = os.fdopen(os.dup(sys.stderr.fileno()), "w", errors="backslashreplace")
    handler = logging.StreamHandler(console)
    handler.setFormatter(TextFormatter() if form == "text" else JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    process_log.setLevel(logging.INFO)


def note(**fields: object) -> None:
    """Add fields to the log line of the request that the current task works on."""
    noted = _noted.get()
    if noted is not None:
        noted.update(fields)


class RequestLog:
    """An ASGI middleware that logs a line for every request except successful health probes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        noted: dict[str, object] = {}
        _noted.set(noted)
        started = time.perf_counter()
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = status or 500
            noted["code"] = "internal_error"
            raise
        finally:
            _write(scope, status or _NOBODY_READS, time.perf_counter() - started, noted)


def _write(scope: Scope, status: int, seconds: float, noted: Mapping[str, object]) -> None:
    path = scope["path"]
    if path in _QUIET and status < 400:
        return
    method, path = scope["method"], path.encode("unicode_escape").decode()[:_LONGEST_PATH]
    fields = {"method": method, "path": path, "status": status, "request_id": request_id.get()}
    fields |= {**noted, "seconds": round(seconds, 6)}
    _requests.info("%s %s %d", method, path, status, extra={"fields": fields})


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
