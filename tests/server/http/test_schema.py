"""`/openapi.json` against the standard, and the server against `/openapi.json`."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from ponder.protocol.dialects import DIALECTS, dialect_at
from ponder.server.app import ELSEWHERE, create_app

from .conftest import Serve

EXAMPLES = 25  # of each operation
# Budgets that disagree, say, no schema can refuse; and numbers may come as text.
BEYOND_A_SCHEMA = [positive_data_acceptance, negative_data_rejection]


@pytest.fixture
def schema(serve: Serve) -> dict[str, Any]:
    said: dict[str, Any] = httpx.get(f"{serve().url}/openapi.json").json()
    return said


def test_it_is_valid(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    validate(schema)


def test_every_route_is_described(serve: Serve) -> None:
    app = create_app(serve().service)
    schema = app.openapi()
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    hidden = {route.path for route in routes if not route.include_in_schema}
    assert hidden == {"/docs", *(path for path in ELSEWHERE if path not in DIALECTS)}
    shown = {route.path_format for route in routes if route.include_in_schema}
    assert schema["paths"].keys() == shown
    groups = {tag["name"] for tag in schema["tags"] if tag["description"]}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation["description"] and operation["summary"], path
            assert len(operation["tags"]) == 1 and groups >= set(operation["tags"]), path
            assert all(given["description"] for given in operation.get("parameters", [])), path
            for status, response in operation["responses"].items():
                assert response["description"] != "Successful Response", path
                shapes = [said["schema"] for said in response["content"].values()]
                assert shapes and all(shapes), (path, status)


def test_every_operation_says_its_errors_in_their_shape(schema: dict[str, Any]) -> None:
    for path, operations in schema["paths"].items():
        shape = {"$ref": f"#/components/schemas/{dialect_at(path).failure.__name__}"}
        for operation in operations.values():
            said = operation["responses"]
            assert "422" not in said
            errors = {status for status in said if status[0] in "45"}
            assert errors >= {"400", "403", "408", "414", "431", "500", "503"}
            keyed = path.startswith("/v1/") or path in ("/tokenize", "/detokenize")
            assert ("401" in errors) == keyed
            for status in errors:
                if path not in ("/readyz", "/health", "/ping"):
                    assert said[status]["content"]["application/json"]["schema"] == shape
    for path in DIALECTS:
        answers = schema["paths"][path]["post"]["responses"]
        assert set(answers) >= {"404", "413", "415", "502", "504"}
        assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        assert "529" in schema["paths"][path]["post"]["responses"]
    assert "529" not in schema["paths"]["/v1/completions"]["post"]["responses"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/health", "/ping", "/metrics"])
def test_what_is_text_is_declared_as_text(schema: dict[str, Any], path: str) -> None:
    assert set(schema["paths"][path]["get"]["responses"]["200"]["content"]) == {"text/plain"}


def test_keys_are_declared_where_they_are_wanted(serve: Serve) -> None:
    ways: list[dict[str, list[str]]] = [{"key": []}, {"header": []}]
    for keys, wanted in (("", [{}, *ways]), ("one", ways)):
        more = {"api_key": keys} if keys else {}
        said = httpx.get(f"{serve(**more).url}/openapi.json").json()
        assert said["paths"]["/v1/models"]["get"]["security"] == wanted
        assert "security" not in said["paths"]["/healthz"]["get"]


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({}, True),
        ({"thinking_token_budget": 8, "temperature": None, "include_reasoning": None}, True),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, True),
        ({"logprobs": True, "top_logprobs": 3}, True),
        ({"messages": []}, False),
        ({"messages": [{"role": "user"}]}, False),
        ({"messages": [{"role": "user", "content": None}]}, False),
        ({"thinking_token_budget": -2}, False),
        ({"thinking_token_budget": 1.5}, False),
        ({"thinking": {"budget_tokens": "many"}}, False),
        ({"top_logprobs": 3}, False),
        ({"stream_options": {}}, False),
        ({"no_such_field": 1}, False),
    ],
)
def test_schema_and_server_agree_on_a_body(
    serve: Serve, fields: dict[str, object], valid: bool
) -> None:
    running = serve()
    schema = httpx.get(f"{running.url}/openapi.json").json()
    body = {"messages": [USER], **fields}
    chat = {"$ref": "#/components/schemas/ChatCompletionRequest", **schema}
    assert jsonschema.Draft202012Validator(chat).is_valid(body) == valid
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
    assert (answer.status_code == 200) == valid


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({}, True),
        ({"prompt": [1, 2]}, True),
        ({"prompt": [[1], [2]], "budget": 0, "echo": None, "best_of": 1}, True),
        ({"prompt": "<think>", "ponder": {"thinking": "open"}}, True),
        ({"prompt": None}, False),
        ({"prompt": []}, False),
        ({"prompt": [1.5]}, False),
        ({"echo": True}, True),
        ({"suffix": "x"}, False),
        ({"logprobs": 21}, False),
        ({"ponder": {"thinking": "shut"}}, False),
        ({"stream_options": {}}, False),
        ({"thinking_token_budget": -2}, False),
    ],
)
def test_schema_and_server_agree_on_a_completion(
    serve: Serve, fields: dict[str, object], valid: bool
) -> None:
    running = serve()
    schema = httpx.get(f"{running.url}/openapi.json").json()
    body = {"prompt": "Once", **fields}
    request = {"$ref": "#/components/schemas/CompletionRequest", **schema}
    assert jsonschema.Draft202012Validator(request).is_valid(body) == valid
    answer = httpx.post(f"{running.url}/v1/completions", json=body)
    assert (answer.status_code == 200) == valid


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 8}, "system": None}, True),
        ({"system": [{"type": "text", "text": "a", "cache_control": {}}], "budget": 0}, True),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, True),
        ({"tools": [{"name": "a", "input_schema": {}}], "tool_choice": {"type": "none"}}, True),
        ({"max_tokens": None}, False),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, False),
        ({"messages": [{"role": "user"}]}, False),
        ({"thinking": {"type": "on"}}, False),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, False),
        ({"output_config": {"format": {"type": "text"}}}, False),
        ({"stop_sequences": [""]}, False),
        ({"no_such_field": 1}, False),
    ],
)
def test_schema_and_server_agree_on_a_message(
    serve: Serve, fields: dict[str, object], valid: bool
) -> None:
    running = serve()
    schema = httpx.get(f"{running.url}/openapi.json").json()
    body = {"max_tokens": 9, "messages": [USER], **fields}
    request = {"$ref": "#/components/schemas/MessagesRequest", **schema}
    assert jsonschema.Draft202012Validator(request).is_valid(body) == valid
    answer = httpx.post(f"{running.url}/v1/messages", json=body)
    assert (answer.status_code == 200) == valid


def test_the_server_keeps_to_it_whatever_is_asked(serve: Serve) -> None:
    """Generated requests, good and bad: declared statuses, types and shapes, and no failure."""
    schema = schemathesis.openapi.from_url(f"{serve().url}/openapi.json")
    seen = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def conforms(case: schemathesis.Case) -> None:
            nonlocal seen
            seen += 1
            answer = case.call()
            case.validate_response(answer, excluded_checks=BEYOND_A_SCHEMA)
            assert answer.headers["x-request-id"]

        conforms()
    assert seen > 6 * EXAMPLES  # six operations take bodies
