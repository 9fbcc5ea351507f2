"""`/openapi.json`: FastAPI's schema, with the bodies and errors that FastAPI cannot see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from ponder.protocol.dialect import Dialect
from ponder.protocol.dialects import COUNTERS, DIALECTS, dialect_at
from ponder.protocol.errors import ApiError, ErrorResponse
from ponder.protocol.finish import FinishRequest
from ponder.protocol.savings import FeedbackRequest
from ponder.protocol.spellings import BUDGETS
from ponder.protocol.tokens import DetokenizeRequest, TokenizeRequest

TAGS = [
    {"name": "chat", "description": "Ask, within a budget"},
    {"name": "tokens", "description": "Count before asking"},
    {"name": "models", "description": "The model and its calibrated curves"},
    {"name": "savings", "description": "What the saving policy saves"},
    {"name": "operations", "description": "For operators and their tools; without a key"},
    {"name": "pages", "description": "For people"},
]
"""The groups of routes, in the order in which `/docs` shows them."""

_REF = "#/components/schemas/{model}"
_BODIES = (FeedbackRequest, FinishRequest, TokenizeRequest, DetokenizeRequest)
_ANY = {
    400: "The request is at fault: `param` names the field, `message` the remedy",
    403: "The Host is not one of this server's, or the operator does not allow an option",
    408: "The request took too long to arrive, or no answer can be there by its deadline",
    414: "The URL is too long",
    431: "The headers are too large",
    500: "An internal error, or `no_answer_produced`: the answer and its retry were empty",
    503: "Overloaded, draining, or the engine is dead: see Retry-After",
}
_MORE = {
    401: "The API key is missing or wrong",
    404: "There is no such model or response",
    409: "The reply does not think, or no longer",
    413: "The body is too large",
    415: "A browser sent something else than JSON",
    502: "The engine failed the request",
    504: "The request took longer than --request-timeout",
}
_ADDED = {
    "/v1/models": (401,),
    "/v1/models/{name}": (401, 404),
    "/v1/ponder/curves": (401,),
    "/v1/ponder/savings": (401,),
    "/v1/ponder/{response_id}/feedback": (401, 404, 413, 415),
    "/v1/ponder/{response_id}/finish": (401, 404, 409, 413, 415),
    **dict.fromkeys(("/tokenize", "/detokenize", *COUNTERS), (401, 404, 413, 415, 504)),
}
_OF_DIALECTS = (401, 404, 413, 415, 502, 504)
_BUDGET = {
    "anyOf": [
        {"type": "integer", "minimum": -1},
        {"type": "string", "const": "auto"},
        {"type": "null"},
    ]
}
_OTHER_BUDGETS = (
    ("Thinking", "budget_tokens"),
    ("Reasoning", "max_tokens"),
    ("ResponseReasoning", "max_tokens"),
    ("NvExt", "max_thinking_tokens"),
    ("ThinkingConfig", "thinking_budget"),
    ("CustomParams", "thinking_budget"),
)


CHOICE = {
    "name": "choice",
    "in": "query",
    "description": "the choice whose thought to finish (default: all that think)",
    "schema": {"type": "integer", "minimum": 0},
}
"""The query parameter of the route that finishes thoughts; its body may hold it instead."""


def body_of(model: type, *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` for a route that reads its body itself."""
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {"requestBody": {"required": required, "content": content}}


def describes(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The application's `openapi` function, which makes the schema at its first call."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    return openapi


def _described(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        tags=app.openapi_tags,
        routes=app.routes,
    )
    components = schema["components"]
    known = components["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)
    dialects = DIALECTS.values()
    read = [*_BODIES, ErrorResponse, *(counter.request for counter in COUNTERS.values())]
    read += [model for dialect in dialects for model in (dialect.request, dialect.failure)]
    models = [(model, "validation") for model in read]
    models += [(dialect.chunk, "serialization") for dialect in dialects]
    _, definitions = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    known.update(definitions["$defs"])
    _tighten(known)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            added = _OF_DIALECTS if path in DIALECTS else _ADDED.get(path, ())
            dialect = dialect_at(path)
            for status in sorted((*_ANY, *added)):
                error = _error(status, dialect.failure)
                for told in {
                    status,
                    dialect.error(ApiError(status, code="", message=""), "").status,
                }:
                    operation["responses"].setdefault(str(told), error)
            if 401 in added:
                keys = app.state.service.settings.api_key
                operation["security"] = [*([] if keys else [{}]), {"key": []}, {"header": []}]
            if path in DIALECTS and method == "post":
                content = operation["responses"]["200"]["content"]
                content["text/event-stream"] = {"schema": _stream(DIALECTS[path])}
    return schema


def _encoded(*models: type) -> dict[str, Any]:
    """A string that holds one of the models."""
    references = [{"$ref": _REF.format(model=model.__name__)} for model in models]
    return {"contentMediaType": "application/json", "contentSchema": {"anyOf": references}}


def _stream(dialect: Dialect) -> dict[str, Any]:
    """One server-sent event, as OpenAPI 3.2 describes them."""
    said = [_encoded(dialect.chunk, dialect.failure)]
    about = "With `stream`: server-sent events; a stream that fails ends with its error"
    if dialect.done is not None:
        said.insert(0, {"const": dialect.done})
        about += f", any other with `{dialect.done}`"
    return {
        "type": "object",
        "description": about,
        "required": ["data"],
        "properties": {"data": {"type": "string", "anyOf": said}},
    }


def _error(status: int, shape: type) -> dict[str, Any]:
    reference = {"$ref": _REF.format(model=shape.__name__)}
    return {
        "description": {**_ANY, **_MORE}[status],
        "content": {"application/json": {"schema": reference}},
    }


def _tighten(known: dict[str, Any]) -> None:
    """Add what the models check in code, and that null is the same as leaving a field out."""
    for definition in _strict(known.values()):
        required = definition.get("required", ())
        for name, given in definition["properties"].items():
            if name not in required and not _nullable(given):
                about = {key: given.pop(key) for key in ("title", "default") if key in given}
                definition["properties"][name] = {"anyOf": [given, {"type": "null"}], **about}
    for model, name in _OTHER_BUDGETS:
        known[model]["properties"][name] = {"title": name, **_BUDGET}
    said = {"required": ["content"], "properties": {"content": {"not": {"type": "null"}}}}
    assistant = {"properties": {"role": {"const": "assistant"}}}
    known["Message"]["anyOf"] = [assistant, said]
    spoken = ("text", "refusal")
    known["Part"]["anyOf"] = [
        *({"properties": {"type": {"const": name}}, "required": [name]} for name in spoken),
        {"properties": {"type": {"not": {"enum": spoken}}}},
    ]
    for definition in _strict(known.values()):
        properties = definition["properties"]
        for name in properties.keys() & set(BUDGETS):
            properties[name] = {"title": name, **_BUDGET}
        needs = []
        if "top_logprobs" in properties:
            needs.append(_needs("top_logprobs", {"type": "integer", "minimum": 1}, "logprobs"))
        if "stream_options" in properties:
            needs.append(_needs("stream_options", {"type": "object"}, "stream"))
        if needs:
            definition["allOf"] = needs


def _needs(field: str, kind: dict[str, Any], switch: str) -> dict[str, Any]:
    """A rule: where `field` is given, `switch` has to be true."""
    given = {"required": [field], "properties": {field: kind}}
    return {
        "if": given,
        "then": {"required": [switch], "properties": {switch: {"const": True}}},
    }


def _strict(definitions: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (one for one in definitions if isinstance(one.get("additionalProperties"), bool))


def _nullable(given: dict[str, Any]) -> bool:
    kinds = given.get("anyOf", [given])
    return any(kind.get("type") == "null" or not kind.keys() - {"title"} for kind in kinds)
