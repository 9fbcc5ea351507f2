"""`Ponder` and `AsyncPonder` behave alike: every test runs with both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from ponder.client import AsyncPonder, Ponder, PonderAPIError
from ponder.client.request import ChatOptions
from ponder.client.retry import pause
from ponder.protocol.dialects.chat import ChatCompletionRequest
from ponder.protocol.noise import Noise
from ponder.protocol.response import ChatCompletion, ChatCompletionChunk

from .scripted import (
    Reply,
    ScriptedServer,
    answer,
    chunk,
    completion,
    error,
    event_stream,
    models,
    report,
    savings,
)

Handler = Callable[[httpx.Request], httpx.Response]
Ask = Callable[..., Any]
NO_RETRY = {"x-should-retry": "false"}


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
    ask(transport, "host/v1/", messages, model="other")
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
        (b"[" * 9999, f"HTTP 502 Bad Gateway: {'[' * 200}"),
    ],
)
def test_an_error_of_another_shape_is_still_told(
    ask: Ask, stream: bool, body: bytes, message: str
) -> None:
    transport, _ = scripted(httpx.Response(502, content=body, headers=NO_RETRY))
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


def call(kind: type[Ponder] | type[AsyncPonder], transport: Any, method: str, *args: Any) -> Any:
    """A method of either client."""

    async def awaited(client: AsyncPonder) -> Any:
        async with client:
            return await getattr(client, method)(*args)

    client = kind("http://host", "key", transport=transport)
    if isinstance(client, AsyncPonder):
        return asyncio.run(awaited(client))
    with client:
        return getattr(client, method)(*args)


@pytest.mark.parametrize("kind", [Ponder, AsyncPonder])
def test_feedback_goes_to_its_response(kind: type[Ponder] | type[AsyncPonder]) -> None:
    told = {"object": "ponder.feedback", "id": "a/b", "score": 0.5}
    transport, requests = scripted(httpx.Response(200, json=told))
    assert call(kind, transport, "feedback", "a/b", 0.5).score == 0.5
    assert str(requests[0].url) == "http://host/v1/ponder/a%2Fb/feedback"
    assert json.loads(requests[0].content) == {"score": 0.5}


FINISH = {"object": "ponder.finish", "id": "chat-1", "choices": [1]}


@pytest.mark.parametrize("kind", [Ponder, AsyncPonder])
@pytest.mark.parametrize("choice", [None, 1])
def test_a_thought_is_finished_by_id_or_name(
    kind: type[Ponder] | type[AsyncPonder], choice: int | None
) -> None:
    transport, requests = scripted(httpx.Response(202, json=FINISH))
    assert call(kind, transport, "finish", "my/chat", choice).choices == [1]
    assert str(requests[0].url) == "http://host/v1/ponder/my%2Fchat/finish"
    assert json.loads(requests[0].content) == {"choice": choice}


@pytest.mark.parametrize("kind", [Ponder, AsyncPonder])
def test_what_does_not_think_is_not_asked_again(kind: type[Ponder] | type[AsyncPonder]) -> None:
    said = error("there is no thought to finish", "not_thinking")
    transport, requests = scripted(
        httpx.Response(409, json=said, headers={"x-should-retry": "false"})
    )
    with pytest.raises(PonderAPIError, match="no thought") as caught:
        call(kind, transport, "finish", "chat-1")
    assert (caught.value.status, caught.value.code, len(requests)) == (409, "not_thinking", 1)


def test_without_the_header_a_stream_has_the_id_of_its_chunks(ask: Ask) -> None:
    async def scenario(transport: httpx.MockTransport) -> None:
        async with AsyncPonder("http://host", "key", transport=transport) as client:
            chunks = await client.chat("Hi", model="tiny", stream=True)
            async for _ in chunks:
                await chunks.finish()
                break

    responses = (
        httpx.Response(200, content=event_stream(answer())),
        httpx.Response(202, json=FINISH),
    )
    transport, requests = scripted(*responses)
    if ask is ask_async:
        asyncio.run(scenario(transport))
    else:
        with Ponder("http://host", "key", transport=transport) as client:
            for _ in (chunks := client.chat("Hi", model="tiny", stream=True)):
                chunks.finish()
                break
    assert requests[1].url.path == "/v1/ponder/chat-1/finish"


def test_a_stream_finishes_its_own_thought() -> None:
    stream = httpx.Response(200, content=event_stream(answer()), headers={"x-request-id": "chat-1"})
    transport, requests = scripted(stream, httpx.Response(202, json=FINISH))
    with (
        Ponder("http://host", "key", transport=transport) as client,
        client.chat("Hi", model="tiny", name="mine", stream=True) as chunks,
    ):
        assert chunks.id == "chat-1"
        for number, _ in enumerate(chunks):
            if number == 1:
                assert chunks.finish(1).choices == [1]
    assert requests[0].headers["x-client-request-id"] == "mine"
    assert "name" not in json.loads(requests[0].content)
    assert str(requests[1].url) == "http://host/v1/ponder/chat-1/finish"


def test_an_async_stream_finishes_its_own_thought() -> None:
    async def scenario(transport: httpx.MockTransport) -> list[int]:
        async with (
            AsyncPonder("http://host", "key", transport=transport) as client,
            await client.chat("Hi", model="tiny", name="mine", stream=True) as chunks,
        ):
            async for _ in chunks:
                return (await chunks.finish()).choices
        return []

    stream = httpx.Response(200, content=event_stream(answer()), headers={"x-request-id": "chat-1"})
    transport, requests = scripted(stream, httpx.Response(202, json=FINISH))
    assert asyncio.run(scenario(transport)) == [1]
    assert requests[0].headers["x-client-request-id"] == "mine"


@pytest.mark.parametrize("name", ["", "ünï", "a\nb", " a"])
def test_a_name_that_no_header_carries_is_a_mistake(name: str) -> None:
    transport, _ = scripted()
    with (
        Ponder("http://host", "key", transport=transport) as client,
        pytest.raises(ValueError, match="names no request"),
    ):
        client.chat("Hi", model="tiny", name=name)


@pytest.mark.parametrize("kind", [Ponder, AsyncPonder])
def test_savings_are_typed(kind: type[Ponder] | type[AsyncPonder]) -> None:
    transport, requests = scripted(httpx.Response(200, json=savings()))
    got = call(kind, transport, "savings")
    assert (got.status, got.tokens.policy.count) == ("insufficient data", 3)
    assert str(requests[0].url) == "http://host/v1/ponder/savings"
    transport, _ = scripted(refusal(503, x_should_retry="false"))
    with pytest.raises(PonderAPIError, match="busy"):
        call(kind, transport, "savings")


def test_a_deadline_is_one_of_ponders_own(ask: Ask) -> None:
    for options, sent in (
        ({"deadline_ms": 250}, {"deadline_ms": 250}),
        ({"deadline_ms": 250, "ponder": {"hint": False}}, {"hint": False, "deadline_ms": 250}),
    ):
        transport, requests = scripted(httpx.Response(200, json=completion()))
        reply = ask(transport, "http://host", "Hi", model="tiny", **options)
        assert reply.choices[0].ponder.deadline_met is None
        body = json.loads(requests[0].content)
        assert (body["ponder"], "deadline_ms" in body) == (sent, False)


SPELLINGS = {"budget", "thinking_budget", "max_thinking_tokens", "reasoning_budget"}
SPELLINGS |= {"thinking_budget_tokens", "think", "thinking", "reasoning", "nvext", "google"}
SPELLINGS |= {"custom_params", "separate_reasoning", "reasoning_format"}
REFUSED = {"guided_json", "guided_regex", "guided_choice", "guided_grammar", "functions"}
REFUSED |= {"function_call", "echo", "best_of", "add_special_tokens", "audio", "vllm_xargs"}
REFUSED |= {"custom_logit_processor"}
PARAMETERS = {"model", "messages", "thinking_token_budget", "stream"}


def test_every_field_of_a_chat_is_a_keyword() -> None:
    taken = set(ChatOptions.__annotations__) - {"deadline_ms", "strategy"}
    served = set(ChatCompletionRequest.model_fields) - set(Noise.model_fields)
    assert taken == (served | {"metadata"}) - SPELLINGS - REFUSED - PARAMETERS


def test_tools_and_formats_go_as_they_are(ask: Ask) -> None:
    options: ChatOptions = {
        "tools": [{"type": "function", "function": {"name": "weather"}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "logit_bias": {5: -100},
        "metadata": {"task": "sum"},
        "user": "ada",
    }
    transport, requests = scripted(httpx.Response(200, json=completion()))
    ask(transport, "http://host", "Hi", model="tiny", **options)
    body = json.loads(requests[0].content)
    assert {name: body[name] for name in options} == {**options, "logit_bias": {"5": -100}}
    assert ChatCompletionRequest.model_validate(body).user == "ada"


@pytest.mark.parametrize("kind", [Ponder, AsyncPonder])
def test_curves_are_typed(kind: type[Ponder] | type[AsyncPonder]) -> None:
    point = {"budget": -1, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 1.0}
    auto = {"budget": 64, "best": -1, "n": 300, "problems_sha256": "c0de"}
    auto |= dict.fromkeys(("accuracy", "tokens", "best_accuracy", "best_tokens"), 0.9)
    auto |= dict.fromkeys(("difference", "difference_low", "difference_high"), 0.0)
    curve = {"task": None, "auto": auto, "efforts": {"max": 64}}
    curve |= {"points": [{**point, "tokens": 80.5, "n": 300}]}
    transport, requests = scripted(httpx.Response(200, json={"model": "tiny", "curves": [curve]}))
    (got,) = call(kind, transport, "curves").curves
    assert (got.task, got.auto.budget, got.points[0].tokens) == (None, 64, 80.5)
    assert str(requests[0].url) == "http://host/v1/ponder/curves"


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_newer_server_adds_is_no_error(ask: Ask, stream: bool) -> None:
    """Fields and words that this client does not know."""
    new = report(end_cause="unheard_of", budget_source="pool", arm="third", interim_answers=[1])
    if stream:
        events = [chunk(content="7", citations=[]), {**chunk("tool_calls", ponder=new), "x": 1}]
        transport, _ = scripted(httpx.Response(200, content=event_stream([*events, "[DONE]"])))
        choice = ask(transport, "http://host", "Hi", model="tiny", stream=True)[-1].choices[0]
    else:
        body = completion() | {"service_tier": "default"}
        body["choices"][0] |= {"ponder": new, "finish_reason": "tool_calls", "extra": 1}
        transport, _ = scripted(httpx.Response(200, json=body))
        choice = ask(transport, "http://host", "Hi", model="tiny").choices[0]
    assert (choice.finish_reason, choice.ponder.end_cause) == ("tool_calls", "unheard_of")


def test_cards_of_a_newer_server_are_read() -> None:
    listed = models("tiny", exits=["deadline"])
    listed["data"][0]["modalities"] = ["text"]
    transport, _ = scripted(httpx.Response(200, json=listed))
    assert call(Ponder, transport, "models").data[0].id == "tiny"


def test_an_error_after_the_first_chunks_is_raised(ask: Ask, server: ScriptedServer) -> None:
    server.replies.append(Reply([chunk(content="It"), error("the engine died", "engine_error")]))
    with pytest.raises(PonderAPIError, match="the engine died"):
        ask(None, server.url, "Hi", stream=True)


def test_an_answer_that_is_there_needs_no_connection(ask: Ask) -> None:
    """Proxies may break a connection behind the last event."""

    class Breaks(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield event_stream(answer())
            raise httpx.RemoteProtocolError("incomplete chunked read")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in self:
                yield piece

    transport, _ = scripted(httpx.Response(200, stream=Breaks()))
    assert len(ask(transport, "http://host", "Hi", model="tiny", stream=True)) == len(answer()) - 1


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


@pytest.mark.parametrize("kind", [Ponder, AsyncPonder])
def test_any_number_of_streams_runs_at_once(
    server: ScriptedServer, kind: type[Ponder] | type[AsyncPonder]
) -> None:
    """Finishing one of them is a request more, for which a limit would leave no connection."""
    many = 101  # one more than httpx allows by default
    server.replies += [Reply([chunk(content="It")], endless=True) for _ in range(many)]

    async def ask() -> None:
        async with AsyncPonder(server.url, timeout=5) as client:
            streams = [await client.chat("Hi", model="tiny", stream=True) for _ in range(many)]
            assert len(streams) == many

    if kind is AsyncPonder:
        asyncio.run(ask())
    else:
        with Ponder(server.url, timeout=5) as client:
            streams = [client.chat("Hi", model="tiny", stream=True) for _ in range(many)]
            assert len(streams) == many


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


def refusal(status: int, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=error("busy", "overloaded"), headers=names)


@pytest.mark.parametrize("stream", [False, True])
def test_a_busy_server_is_asked_again(ask: Ask, stream: bool) -> None:
    good = event_stream(answer()) if stream else json.dumps(completion()).encode()
    transport, requests = scripted(
        refusal(503, retry_after="0"),
        refusal(500, retry_after="0"),
        httpx.Response(200, content=good),
    )
    assert ask(transport, "http://host", "Hi", model="tiny", stream=stream)
    assert len({request.content for request in requests}) == 1
    assert len(requests) == 3


def test_a_server_that_stays_busy_is_left_after_two_more_tries(ask: Ask) -> None:
    transport, requests = scripted(*(refusal(503, retry_after="0") for _ in range(9)))
    with pytest.raises(PonderAPIError, match="busy"):
        ask(transport, "http://host", "Hi", model="tiny")
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {}),
        (404, {"retry_after": "0"}),
        (500, {"x_should_retry": "false"}),
        (503, {"retry_after": "3600"}),
    ],
)
def test_what_another_try_does_not_mend_is_not_tried(
    ask: Ask, status: int, headers: dict[str, str]
) -> None:
    transport, requests = scripted(refusal(status, **headers))
    with pytest.raises(PonderAPIError):
        ask(transport, "http://host", "Hi", model="tiny")
    assert len(requests) == 1


def test_pauses_grow_where_the_server_names_none() -> None:
    bare, dated = refusal(503), refusal(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")
    assert [pause(bare, attempt) for attempt in range(3)] == [0.5, 1.0, 2.0]
    assert (pause(dated, 0), pause(refusal(503, retry_after="7"), 1)) == (0.5, 7.0)
