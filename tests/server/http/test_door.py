"""What every answer carries, and what browsers may not do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.server.door import allowed_hosts, welcome
from ponder.server.settings import Settings
from waiting import wait_until

from .conftest import Running, Serve

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def running(serve: Serve) -> Running:
    return serve(max_body_bytes=2048)


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/healthz", {}, 200),
        ("GET", "/pages/page.js", {}, 200),
        ("POST", CHAT, {"json": ASK}, 200),
        ("POST", CHAT, {"json": {**ASK, "stream": True}}, 200),
        ("POST", CHAT, {"content": "{"}, 400),
        ("GET", "/healthz", {"headers": {"host": "evil.example"}}, 403),
        ("GET", "/nowhere", {}, 404),
        ("POST", f"{CHAT}/", {"json": ASK}, 404),
        ("DELETE", CHAT, {}, 405),
        ("POST", CHAT, {"content": "x" * 4096}, 413),
        ("POST", CHAT, {"headers": {"origin": "null"}, "content": "{}"}, 415),
        ("GET", "/healthz", {"headers": {"a": "b" * 70_000}}, 431),
    ],
)
def test_every_answer_has_an_id(
    client: httpx.Client, method: str, path: str, more: dict[str, object], status: int
) -> None:
    answer = client.request(method, path, **more)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert answer.headers.get_list("x-request-id", split_commas=True)
    assert len(answer.headers.get_list("x-request-id", split_commas=True)) == 1
    assert "location" not in answer.headers
    if status >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_refusals_behind_keys_and_at_a_full_server_have_an_id(serve: Serve) -> None:
    running = serve(api_key="one")
    with pytest.raises(openai.AuthenticationError) as refused:
        running.ask()
    assert refused.value.request_id
    running = serve()
    running.service.gate.draining = True
    with pytest.raises(openai.InternalServerError) as late:
        running.ask()
    assert (late.value.status_code, bool(late.value.request_id)) == (503, True)


def test_log_lines_of_refusals_have_the_answers_id(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    from ponder.server.logs import JsonFormatter

    formatted: list[str] = []

    class Handler(JsonFormatter):
        def format(self, record: object) -> str:
            formatted.append(super().format(record))  # type: ignore[arg-type]
            return formatted[-1]

    caplog.handler.setFormatter(Handler())
    caplog.set_level("INFO", "ponder")
    answer = client.get("/nowhere")
    wait_until(lambda: any("/nowhere" in line for line in formatted))  # after the answer
    lines = [json.loads(line) for line in formatted]
    ids = [line.get("request_id") for line in lines if line.get("code") == "not_found"]
    assert ids == [answer.headers["x-request-id"]]


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/version", "/v1/models", "/pages/page.js"]
)
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    asked, told = client.get(path), client.head(path)
    assert told.status_code == asked.status_code == 200
    assert told.content == b""
    assert told.headers["content-type"] == asked.headers["content-type"]
    if path != "/metrics":  # which counts on
        assert told.headers["content-length"] == asked.headers["content-length"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", "GET, HEAD"),
        ("HEAD", CHAT, "POST"),
        ("GET", CHAT, "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("PUT", "/v1/ponder/x/feedback", "POST"),
        ("HEAD", "/v1/ponder/x/finish", "POST"),
        ("GET", "/v1/ponder/x/finish", "POST"),
        ("POST", "/pages/page.js", "GET, HEAD"),
    ],
)
def test_a_method_that_is_none_is_told_those_that_are(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path", ["/pooling", "/generate", "/v1/embeddings", "/v1/audio/speech", "/v1/rerank"]
)
def test_endpoints_of_other_servers_say_what_there_is(client: httpx.Client, path: str) -> None:
    for answer in (client.post(path, json={}), client.get(path)):
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert error["code"] == "endpoint_not_served"
        assert error["message"].startswith(path) and CHAT in error["message"]


def test_what_other_servers_are_asked_for_their_health_works(running: Running) -> None:
    assert httpx.post(f"{running.url}/ping").text == httpx.get(f"{running.url}/ping").text == "ok\n"
    for path in ("/health", "/ping"):
        assert httpx.get(f"{running.url}{path}").status_code == 200
    assert set(httpx.get(f"{running.url}/version").json()) == {"version"}
    assert httpx.get(f"{running.url}/load").json() == {"server_load": 0}
    running.service.watch.dead = True
    for path in ("/health", "/ping", "/readyz"):
        assert httpx.get(f"{running.url}{path}").status_code == 503
    assert httpx.get(f"{running.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "content-type": "text/plain"},
        {"origin": "null", "content-type": "application/x-www-form-urlencoded"},
        {"origin": "https://evil.example", "content-type": "multipart/form-data; boundary=x"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site", "content-type": "text/plain;charset=UTF-8"},
    ],
)
def test_no_page_can_make_a_browser_post(
    running: Running, client: httpx.Client, headers: dict[str, str]
) -> None:
    """Each of these a browser sends without asking first."""
    answer = client.post(CHAT, content=json.dumps(ASK), headers=headers)
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_media_type"
    assert not running.engine.requests


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/x-www-form-urlencoded"},  # `curl -d`
        {"content-type": "application/json; charset=utf-8", "origin": "https://evil.example"},
        {"content-type": "Application/JSON", "sec-fetch-site": "same-origin"},
    ],
)
def test_programs_call_their_json_what_they_like(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    assert client.post(CHAT, content=json.dumps(ASK), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ({}, ()),
        ({"host": "localhost"}, ()),
        ({"host": "::1"}, ()),
        ({"host": "0.0.0.0"}, None),
        ({"host": "::"}, None),
        ({"host": "ponder.example"}, None),
        ({"api_key": "one"}, None),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, ("a.example",)),
        ({"api_key": "one", "allowed_host": ["a.example"]}, ("a.example",)),
        ({"allowed_host": ["*"]}, None),
    ],
)
def test_whose_names_are_checked(
    settings: dict[str, object], hosts: tuple[str, ...] | None
) -> None:
    config = Settings(state=":memory:", **settings)  # type: ignore[arg-type]
    assert allowed_hosts(config) == hosts


@pytest.mark.parametrize(
    ("host", "allowed", "is_welcome"),
    [
        ("localhost", (), True),
        ("LocalHost:8000", (), True),
        ("app.localhost", (), True),
        ("host.docker.internal:8000", (), True),
        ("127.0.0.1:8000", (), True),
        ("[::1]:8000", (), True),
        ("192.168.0.7", (), True),
        ("evil.example", (), False),
        ("localhost.evil.example", (), False),
        ("127.0.0.1.evil.example", (), False),
        ("notlocalhost", (), False),
        ("", (), False),
        ("a.example:443", ("a.example",), True),
        ("A.Example.", ("a.example",), True),
        ("b.a.example", ("a.example",), False),
        ("b.a.example", ("*.a.example",), True),
        ("a.example", ("*.a.example",), False),
        ("evila.example", ("*.a.example",), False),
    ],
)
def test_which_names_are_welcome(host: str, allowed: tuple[str, ...], is_welcome: bool) -> None:
    assert welcome(host, allowed) == is_welcome


@given(st.text(max_size=40))
def test_no_name_of_the_public_internet_is_welcome(name: str) -> None:
    assert not welcome(f"{name}.example", ())
    assert not welcome(f"{name}.example:80", ("other.example",)) or name == "other"


def test_a_name_is_refused_until_it_is_allowed(serve: Serve) -> None:
    for settings, status in (
        ({}, 403),
        ({"allowed_host": ["a.example"]}, 200),
        ({"host": "0.0.0.0"}, 200),
    ):
        url = serve(**settings).url
        for path in ("/", "/healthz", "/metrics", "/v1/models"):
            answer = httpx.get(f"{url}{path}", headers={"host": "a.example"})
            assert answer.status_code == status
        if status == 403:
            assert answer.json()["error"]["code"] == "host_not_allowed"
            assert "--allowed-host" in answer.json()["error"]["message"]
