"""`Ponder` and `AsyncPonder` behave alike: every test runs with both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ponder.client import AsyncPonder, Ponder, PonderAPIError
from ponder.protocol.response import ChatCompletion, ChatCompletionChunk

from .scripted import Reply, ScriptedServer, answer, chunk, completion, error, event_stream, models

Handler = Callable[[httpx.Request], httpx.Response]
Ask = Callable[..., Any]


def ask_sync(transport: httpx.MockTransport | None, url: str, *asked: Any, **options: Any) -> Any:
    with Ponder(url, "key", 5, transport=transport) as client:
        given = client.chat(*asked, **options)
        return given if isinstance(given, ChatCompletion) else list(given)


def ask_async(transport: httpx.MockTransport | None, url: str, *asked: Any, **options: Any) -> Any:
    async def ask() -> Any:
        async with AsyncPonder(url, "key", 5, transport=transport) as client:
            given = await client.chat(*asked, **options)
            return given if isinstance(given, ChatCompletion) else [each async for each in given]

    return asyncio.run(ask())


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    chosen: Ask = request.param
    return chosen


def scripted(*responses: httpx.Response) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """Answers in turn, and the requests that came."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return responses[len(requests) - 1]

    return httpx.MockTransport(handle), requests


def test_a_question_is_one_user_message_to_the_first_model(ask: Ask) -> None:
    transport, requests = scripted(
        httpx.Response(200, json=models("tiny", "other")), httpx.Response(200, json=completion())
    )
    got = ask(transport, "http://host", "How much?", budget=32, max_completion_tokens=99)
    assert got.choices[0].message.content == "It is 7."
    assert got.choices[0].ponder.end_cause == "budget"
    assert [str(request.url) for request in requests] == [
        "http://host/v1/models",
        "http://host/v1/chat/completions",
    ]
    assert requests[1].headers["authorization"] == "Bearer key"
    assert json.loads(requests[1].content) == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "How much?"}],
        "thinking_token_budget": 32,
        "max_completion_tokens": 99,
        "stream": False,
    }


def test_messages_and_a_model_go_as_they_are(ask: Ask) -> None:
    transport, requests = scripted(httpx.Response(200, json=completion()))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    ask(transport, "http://host/v1/", messages, model="other")
    body = json.loads(requests[0].content)
    assert str(requests[0].url) == "http://host/v1/chat/completions"
    assert (body["messages"], body["model"]) == (messages, "other")
    assert "thinking_token_budget" not in body


def test_a_stream_gives_chunks(ask: Ask) -> None:
    transport, requests = scripted(httpx.Response(200, content=event_stream(answer())))
    chunks = ask(transport, "http://host", "Hi", model="tiny", stream=True)
    assert all(isinstance(each, ChatCompletionChunk) for each in chunks)
    deltas = [each.choices[0].delta for each in chunks]
    assert "".join(delta.reasoning or "" for delta in deltas) == "Let me think."
    assert "".join(delta.content or "" for delta in deltas) == "It is 7."
    assert chunks[-1].choices[0].ponder.thinking_tokens == 32
    assert json.loads(requests[0].content)["stream"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_the_servers_error_keeps_status_code_and_param(ask: Ask, stream: bool) -> None:
    body = error("send a number", "invalid_budget", "thinking_token_budget")
    transport, _ = scripted(httpx.Response(400, json=body))
    with pytest.raises(PonderAPIError, match="send a number") as caught:
        ask(transport, "http://host", "Hi", model="tiny", stream=stream)
    got = caught.value
    assert (got.status, got.code, got.param) == (400, "invalid_budget", "thinking_token_budget")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>Bad gateway</html>", "HTTP 502 Bad Gateway: <html>Bad gateway</html>"),
        (b"", "HTTP 502 Bad Gateway"),
        (b'{"detail": "no"}', 'HTTP 502 Bad Gateway: {"detail": "no"}'),
        (b'{"error": "overheated"}', "overheated"),
    ],
)
def test_an_error_of_another_shape_is_still_told(
    ask: Ask, stream: bool, body: bytes, message: str
) -> None:
    transport, _ = scripted(httpx.Response(502, content=body))
    with pytest.raises(PonderAPIError) as caught:
        ask(transport, "http://host", "Hi", model="tiny", stream=stream)
    assert (caught.value.status, caught.value.message) == (502, message)


def test_an_answer_of_something_else_is_an_error(ask: Ask) -> None:
    transport, _ = scripted(httpx.Response(200, text="welcome to my router"))
    with pytest.raises(PonderAPIError, match="is it a Ponder server"):
        ask(transport, "http://host", "Hi")


def test_a_server_without_models_is_an_error(ask: Ask) -> None:
    transport, _ = scripted(httpx.Response(200, json=models()))
    with pytest.raises(PonderAPIError, match="lists no model"):
        ask(transport, "http://host", "Hi")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (httpx.ConnectError("refused"), "unreachable"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.RemoteProtocolError("cut"), "connection_error"),
    ],
)
def test_no_response_is_an_error_without_a_status(
    ask: Ask, failure: httpx.RequestError, code: str
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    with pytest.raises(PonderAPIError, match="http://host") as caught:
        ask(httpx.MockTransport(fail), "http://host", "Hi", model="tiny")
    assert (caught.value.status, caught.value.code) == (None, code)


def test_an_error_after_the_first_chunks_is_raised(ask: Ask, server: ScriptedServer) -> None:
    server.replies.append(Reply([chunk(content="It"), error("the engine died", "engine_error")]))
    with pytest.raises(PonderAPIError, match="the engine died"):
        ask(None, server.url, "Hi", stream=True)


def test_leaving_the_loop_closes_the_connection(server: ScriptedServer) -> None:
    server.replies.append(Reply([chunk(content="It")], endless=True))
    with Ponder(server.url) as client:
        for each in client.chat("Hi", stream=True):
            assert each.choices[0].delta.content == "It"
            break
        assert server.client_gone.wait(5)


def test_leaving_the_with_closes_the_connection(server: ScriptedServer) -> None:
    server.replies.append(Reply([chunk(content="It")], endless=True))
    with Ponder(server.url) as client:
        with client.chat("Hi", stream=True):
            pass
        assert server.client_gone.wait(5)


def test_leaving_the_async_with_closes_the_connection(server: ScriptedServer) -> None:
    async def leave() -> bool:
        async with AsyncPonder(server.url) as client:
            async with await client.chat("Hi", stream=True) as stream:
                async for _ in stream:
                    break
            return await asyncio.to_thread(server.client_gone.wait, 5)

    server.replies.append(Reply([chunk(content="It")], endless=True))
    assert asyncio.run(leave())


def test_cancelling_the_task_closes_the_connection(server: ScriptedServer) -> None:
    async def cancel() -> bool:
        async with AsyncPonder(server.url) as client:
            started = asyncio.Event()

            async def read() -> None:
                async for _ in await client.chat("Hi", stream=True):
                    started.set()

            task = asyncio.create_task(read())
            await started.wait()
            task.cancel()
            await asyncio.wait([task])
            return await asyncio.to_thread(server.client_gone.wait, 5)

    server.replies.append(Reply([chunk(content="It")], endless=True))
    assert asyncio.run(cancel())
