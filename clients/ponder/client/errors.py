"""The one exception of the client, and the replies that become it."""

from __future__ import annotations

import json
from typing import Any

import httpx

from ponder.errors import PonderError

_SPEAKS_HTTPS = ("sent to HTTPS port", "HTTP request to an HTTPS server")
"""Texts in the 400 with which nginx and Go's servers answer plain HTTP."""


class PonderAPIError(PonderError):
    """A request that got no answer.

    `status` is the HTTP status: None where no response came (`code` is then `unreachable`,
    `timeout` or `connection_error`), 200 where the failure came after streaming had begun.
    `code`, `message` and `param` are the server's; `message` names the remedy.
    """

    def __init__(
        self, status: int | None, code: str, message: str, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


def error_of_body(status: int, error: Any) -> PonderAPIError:
    """The error for the value of `error` in an OpenAI-shaped body."""
    if not isinstance(error, dict):
        return PonderAPIError(status, "http_error", str(error))
    code, param = error.get("code"), error.get("param")
    return PonderAPIError(
        status,
        "http_error" if code is None else str(code),
        str(error.get("message") or error),
        None if param is None else str(param),
    )


def error_of_response(response: httpx.Response) -> PonderAPIError:
    """The error for a response whose body has been read, even a proxy's page without an `error`."""
    try:
        return error_of_body(response.status_code, json.loads(response.content)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        if any(said in response.text for said in _SPEAKS_HTTPS):
            message = "the server speaks https: write https:// in its URL"
            return PonderAPIError(response.status_code, "http_error", message)
        said = f"HTTP {response.status_code} {response.reason_phrase}: {response.text[:200]}"
        return PonderAPIError(response.status_code, "http_error", said.strip(" :"))
