"""Errors in OpenAI's shape, and the one place where exceptions get their HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ponder.engine.base import (
    EngineDeadError,
    EngineError,
    EngineOverloadedError,
    RequestRefusedError,
)
from ponder.protocol.request import PonderOptions
from ponder.thought import errors as thought


class ErrorBody(BaseModel):
    """What OpenAI's clients read: `message` names the remedy, `param` the field at fault."""

    message: str
    type: str
    param: str | None = None
    code: str


class ErrorResponse(BaseModel):
    error: ErrorBody


class ApiError(Exception):
    """An error that is the answer to a request."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        body = ErrorBody(
            message=str(self), type=_type_of(self.status), param=self.param, code=self.code
        )
        return ErrorResponse(error=body).model_dump()


_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


def _type_of(status: int) -> str:
    if status in _TYPES:
        return _TYPES[status]
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


# The official client repeats 408, 409, 429 and 5xx by itself; a repeat of these is pointless.
NO_RETRY = {"x-should-retry": "false"}

_STATUS: tuple[tuple[type[Exception], int, str, Mapping[str, str]], ...] = (
    (thought.InvalidBudget, 400, "invalid_budget", {}),
    (thought.BudgetLeavesNoAnswer, 400, "budget_leaves_no_answer", {}),
    (thought.ReasoningUnsupported, 400, "reasoning_unsupported", {}),
    (thought.ContextLengthExceeded, 400, "context_length_exceeded", {}),
    (thought.InvalidCloseText, 400, "invalid_request", {}),
    (thought.NoAnswerProduced, 500, "no_answer_produced", NO_RETRY),
    (EngineOverloadedError, 503, "overloaded", {"retry-after": "1"}),
    (EngineDeadError, 503, "engine_dead", {"retry-after": "5"}),
    (RequestRefusedError, 400, "invalid_request", {}),
    (EngineError, 502, "engine_error", {}),
)


def to_api_error(error: BaseException) -> ApiError | None:
    """The HTTP face of a domain error; None for an exception that is nobody's plan."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        return _of_validation(error)
    for kind, status, code, headers in _STATUS:
        if isinstance(error, kind):
            param = getattr(error, "param", None)
            if param in PonderOptions.model_fields:
                param = f"ponder.{param}"
            return ApiError(status, code, str(error), param=param, headers=headers)
    return None


def internal_error() -> ApiError:
    """For what should not happen. The server's log has the traceback."""
    return ApiError(500, "internal_error", "internal error: the server's log has the traceback")


def invalid_request(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, param=param)


def _of_validation(error: ValidationError) -> ApiError:
    """The first problem pydantic found, as a sentence about one field."""
    problem = error.errors(include_url=False)[0]
    param = ".".join(str(part) for part in problem["loc"]) or None
    kind = problem["type"]
    if kind == "json_invalid":
        return invalid_request(f"the body is not JSON: {problem['msg']}")
    if kind == "extra_forbidden":
        return invalid_request(f"{param} is not supported here: leave it out", param)
    if kind == "missing":
        return invalid_request(f"{param} is required: add it", param)
    message = problem["msg"].removeprefix("Value error, ")
    return invalid_request(f"{param}: {message}" if param else message, param)
