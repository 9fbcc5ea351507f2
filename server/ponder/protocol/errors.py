"""Errors in OpenAI's shape, and the one place where exceptions get their HTTP status."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from ponder.engine.protocol import (
    EngineDeadError,
    EngineError,
    EngineOverloadedError,
    RequestRefusedError,
)
from ponder.errors import PonderError
from ponder.experiment.store import StateError
from ponder.protocol.fields import Strict
from ponder.protocol.misnomers import remedy
from ponder.thought import errors as thought


class ErrorBody(BaseModel):
    """What OpenAI's clients read: `message` names the remedy, `param` the field at fault."""

    message: str
    type: str
    param: str | None = None
    code: str


class ErrorResponse(BaseModel):
    error: ErrorBody


class ApiError(PonderError):
    """An error that is the answer to a request.

    `field` is the neutral name of the field at fault (`ponder.protocol.chat`); `param` is the
    client's name for it, which the reader of the body knows and `spelled` finds.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(cut(message, _MOST_MESSAGE))
        self.status = status
        self.code = code
        self.field = field
        self.param = cut(param) if param else None
        self.headers = dict(headers or {})

    def spelled(self, fields: Mapping[str, str]) -> ApiError:
        """The error in a dialect whose names for neutral fields are `fields`."""
        param = self.param
        if self.field is not None:
            first, dot, rest = self.field.partition(".")
            param = f"{fields.get(first, first)}{dot}{rest}"
        message = _NAMED.sub(lambda found: fields.get(found[1], found[0]), str(self))
        return ApiError(self.status, self.code, message, param=param, headers=self.headers)

    def renamed(self, field: str, other: str) -> ApiError:
        """The error about another neutral field than `field`, such as one of its entries."""
        first, dot, rest = other.partition(".")
        message = str(self).replace(f"`{field}`", f"`{first}`{dot}{rest}")
        named = other if self.field == field else self.field
        return ApiError(
            self.status, self.code, message, field=named, param=self.param, headers=self.headers
        )

    @property
    def logged(self) -> str | None:
        """The parts of `param` that are in the schema: logs hold no text of a client's."""
        known = [part for part in (self.param or "").split(".") if part in _field_names()]
        return ".".join(known) or None

    def body(self) -> dict[str, Any]:
        body = ErrorBody(
            message=str(self), type=_type_of(self.status), param=self.param, code=self.code
        )
        return ErrorResponse(error=body).model_dump()


def cut(text: str, most: int = 100) -> str:
    """A client's text, shortened to at most `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(value: object) -> str:
    """A client's value, as a message shows it."""
    if isinstance(value, str):
        return repr(cut(value))
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return cut(json.dumps(value))


_MOST_MESSAGE = 1000
_NAMED = re.compile(r"`(\w+)`")


@cache
def _field_names() -> frozenset[str]:
    return frozenset(name for model in _below(Strict) for name in model.model_fields)


def _below(model: type[Strict]) -> Iterator[type[Strict]]:
    for narrower in model.__subclasses__():
        yield narrower
        yield from _below(narrower)


_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


def _type_of(status: int) -> str:
    if status in _TYPES:
        return _TYPES[status]
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


CODES: Mapping[str, int] = {
    "answer_did_not_fit": 400,
    "auto_uncalibrated": 400,
    "budget_leaves_no_answer": 400,
    "conflicting_budgets": 400,
    "context_length_exceeded": 400,
    "format_unsupported": 400,
    "invalid_budget": 400,
    "invalid_request": 400,
    "malformed_request": 400,
    "reasoning_unsupported": 400,
    "tools_unsupported": 400,
    "invalid_api_key": 401,
    "host_not_allowed": 403,
    "option_not_allowed": 403,
    "endpoint_not_served": 404,
    "model_not_found": 404,
    "not_found": 404,
    "response_not_found": 404,
    "method_not_allowed": 405,
    "deadline_unreachable": 408,
    "request_timeout": 408,
    "not_thinking": 409,
    "request_too_large": 413,
    "uri_too_long": 414,
    "unsupported_media_type": 415,
    "thinking_quota_exhausted": 429,
    "headers_too_large": 431,
    "internal_error": 500,
    "no_answer_produced": 500,
    "engine_error": 502,
    "draining": 503,
    "engine_dead": 503,
    "overloaded": 503,
    "servers_unreachable": 503,
    "state_unavailable": 503,
    "too_many_connections": 503,
    "deadline_exceeded": 504,
}
"""The codes of all errors, with their HTTP status. Metrics begin each at 0."""

# The official client repeats 408, 409, 429 and 5xx by itself; for these errors that is pointless.
NO_RETRY = {"x-should-retry": "false"}

_DEAD = "the engine died and this server is about to exit: send the request to another one"

_STATUS: tuple[tuple[type[Exception], int, str, Mapping[str, str]], ...] = (
    (thought.InvalidBudget, 400, "invalid_budget", {}),
    (thought.BudgetLeavesNoAnswer, 400, "budget_leaves_no_answer", {}),
    (thought.ReasoningUnsupported, 400, "reasoning_unsupported", {}),
    (thought.ContextLengthExceeded, 400, "context_length_exceeded", {}),
    (thought.InvalidCloseText, 400, "invalid_request", {}),
    (thought.AnswerDidNotFit, 400, "answer_did_not_fit", {}),
    (thought.NoAnswerProduced, 500, "no_answer_produced", NO_RETRY),
    (EngineOverloadedError, 503, "overloaded", {"retry-after": "1"}),
    (EngineDeadError, 503, "engine_dead", {"retry-after": "5"}),
    (RequestRefusedError, 400, "invalid_request", {}),
    (EngineError, 502, "engine_error", {}),
    (StateError, 503, "state_unavailable", {"retry-after": "1"}),
)


def to_api_error(error: BaseException) -> ApiError | None:
    """The HTTP error for a domain error; None for an exception that nobody expected: a bug."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        return _of_validation(error)
    if isinstance(error, EngineDeadError):  # its own message is for the operator
        error = EngineDeadError(_DEAD)
    for kind, status, code, headers in _STATUS:
        if isinstance(error, kind):
            field = getattr(error, "field", getattr(error, "param", None))
            return ApiError(status, code, str(error), field=field, headers=headers)
    return None


def error_code(error: Exception) -> str:
    """The code of a domain error on the wire."""
    return next(code for kind, _, code, _ in _STATUS if isinstance(error, kind))


def internal_error() -> ApiError:
    """The error for a bug. The server's log has the traceback."""
    return ApiError(500, "internal_error", "internal error: the server's log has the traceback")


def invalid_request(message: str, field: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, field=field)


_SENTENCES = {
    "missing": "is required: add it",
    "extra_forbidden": "is not supported here: {remedy}",
    "too_short": "must not be empty: add an entry",
    "too_long": "takes at most {max_length} entries: send fewer",
    "string_too_short": "must not be empty: leave it out or give it a text",
    "string_too_long": "takes at most {max_length} characters: shorten it",
    "string_type": "must be a string, not {value}",
    "list_type": "must be a list, not {value}",
    "dict_type": "must be an object, not {value}",
    "model_type": "must be an object, not {value}",
    "model_attributes_type": "must be an object, not {value}",
    "none_required": "must be null: leave it out",
    "bool_type": "must be true or false, not {value}",
    "int_type": "must be a whole number, not {value}",
    "int_parsing": "must be a whole number, not {value}",
    "int_parsing_size": "must be a smaller whole number",
    "int_from_float": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "float_parsing": "must be a number, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "greater_than": "must be above {gt:g}, not {value}",
    "greater_than_equal": "must be at least {ge:g}, not {value}",
    "less_than": "must be below {lt:g}, not {value}",
    "less_than_equal": "must be at most {le:g}, not {value}",
    "literal_error": "must be {expected}, not {value}",
}
"""Messages about a field, by pydantic's name for the problem."""


_ADDED = re.compile(r"\[\w+\]")
"""Parts that pydantic adds to a location: a mark for keys, and the tag of a union's member."""


def _of_validation(error: ValidationError) -> ApiError:
    """The first problem pydantic found, as a sentence about one field.

    The validators of requests and the lengths of their lists keep the list of problems short.
    """
    problem = error.errors(include_url=False)[0]
    context = problem.get("ctx", {})
    where = [str(part) for part in problem["loc"] if not _ADDED.fullmatch(str(part))]
    param = ".".join(where)
    sentence = _SENTENCES.get(problem["type"])
    if sentence is None:  # our own validators speak for themselves
        said = problem["msg"].removeprefix("Value error, ")
        return _invalid(f"{cut(param)}: {said}" if param else said, param)
    name = cut(param) if param else "the body"
    known = {"value": quoted(problem["input"]), "remedy": remedy(where[-1] if where else "")}
    said = sentence.format_map({**context, **known})
    return _invalid(f"{name} {said}", param)


def _invalid(message: str, param: str) -> ApiError:
    return ApiError(400, "invalid_request", message, param=param or None)
