"""The wire between Ponder and an inference server: a stream's events, and its errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from ponder.engine.protocol import EngineError, RequestRefusedError

CAUSES = ("lost", "failed", "overloaded")
_REFUSED = (400, 413, 422)
_FULL = (429, 503)
_EVENT = b"data: {"


class Interrupted(EngineError):
    """A request that a server did not finish; `cause` is one of `CAUSES`."""

    def __init__(self, cause: str, said: str) -> None:
        super().__init__(said)
        self.cause = cause


async def lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """The JSON of each server-sent event. Read to the end: only then is the connection reused."""
    rest = b""
    async for data in content.iter_any():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if line.startswith(_EVENT):
                yield line[len(_EVENT) - 1 :]


def in_band(error: Any) -> Exception:
    """The exception for an error inside a stream whose status was 200."""
    said = error if isinstance(error, Mapping) else {"message": str(error)}
    code = said.get("code")
    return _meaning(code if isinstance(code, int) else 500, str(said.get("message")), said)


def refusal(status: int, text: str) -> Exception:
    """The exception for a reply whose status is not 200."""
    said: Mapping[str, Any] = {}
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        said = orjson.loads(text)["error"]
        return _meaning(status, str(said["message"]), said)
    return _meaning(status, text[:500].strip(), {})


def _meaning(status: int, message: str, said: Mapping[str, Any]) -> Exception:
    if status in _REFUSED:
        return RequestRefusedError(f"the server refused the request: {message}", said.get("param"))
    if status in _FULL:
        return Interrupted("overloaded", f"{status}: {message}")
    if status in (401, 403):
        return EngineError(f"the server wants another key than VLLM_API_KEY has: {message}")
    return Interrupted("failed", f"the server failed the request: {status}: {message}")
