"""Every error that can occur, as the official client sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import httpx
import openai
import pytest

from ponder.engine.protocol import EngineError
from ponder.engine.scripted import Script, say
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.protocol.errors import CODES
from ponder.server.keys import authorise
from waiting import wait_until

from .conftest import Running, Serve

HELLO = [{"role": "user", "content": "hi"}]


def refused(
    running: Running, kind: type[openai.APIStatusError], **fields: object
) -> dict[str, str]:
    """The error body of a request that must be refused with `kind`."""
    with pytest.raises(kind) as caught:
        running.ask(**fields)
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["message"]
    return body


@pytest.mark.parametrize("budget", [-2, True, 1.5, "many", [1]])
def test_a_budget_that_is_none_is_refused(serve: Serve, budget: object) -> None:
    error = refused(serve(), openai.BadRequestError, thinking_token_budget=budget)
    assert (error["code"], error["param"]) == ("invalid_budget", "thinking_token_budget")


def test_auto_needs_a_curve(serve: Serve) -> None:
    error = refused(serve(), openai.BadRequestError, thinking_token_budget="auto")
    assert (error["code"], error["param"]) == ("auto_uncalibrated", "thinking_token_budget")
    assert "needs a calibrated budget curve" in error["message"]
    assert "send a number" in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking_token_budget": 8, "budget": 9},
        {"budget": 8, "thinking": {"budget_tokens": 9}},
        {"budget": 8, "chat_template_kwargs": {"enable_thinking": False}},
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning": {"max_tokens": 5}, "nvext": {"max_thinking_tokens": 6}},
        {"reasoning_effort": "low", "reasoning": {"effort": "high"}},
        {"budget": 0, "thinking": {"type": "enabled"}},
        {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
    ],
)
def test_budgets_that_disagree_are_refused(serve: Serve, fields: dict[str, object]) -> None:
    assert refused(serve(), openai.BadRequestError, **fields)["code"] == "conflicting_budgets"


def test_an_explicit_budget_and_reserve_must_fit(serve: Serve) -> None:
    error = refused(
        serve(),
        openai.BadRequestError,
        budget=90,
        max_completion_tokens=100,
        ponder={"min_answer_tokens": 50},
    )
    assert error["code"] == "budget_leaves_no_answer"
    assert "raise it to" in error["message"]


def test_a_parameter_is_named_as_it_was_sent(serve: Serve) -> None:
    asked = {"max_completion_tokens": 40, "ponder": {"min_answer_tokens": 50}}
    assert refused(serve(), openai.BadRequestError, **asked)["param"] == "ponder.min_answer_tokens"


def test_a_model_that_does_not_think_has_no_budget(serve: Serve) -> None:
    running = serve("Just an answer.", thinks=False)
    for asked in ({"budget": 8}, {"reasoning": {"enabled": True}}):
        assert refused(running, openai.BadRequestError, **asked)["code"] == "reasoning_unsupported"
    for switch in ({}, {"enable_thinking": False}, {"thinking": {"type": "adaptive"}}):
        reply = running.ask(budget=0, reasoning_effort="none", **switch)
        assert reply.choices[0].message.content == "Just an answer."


@pytest.mark.parametrize(
    ("fields", "param", "remedy"),
    [
        ({"budget": 8}, "budget", "leave budget out or set it to 0"),
        ({"thinking": {"budget_tokens": -1}}, "thinking.budget_tokens", "out or set it to 0"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "out or set it to none"),
        ({"enable_thinking": True}, "enable_thinking", "leave enable_thinking out"),
        (
            {"chat_template_kwargs": {"enable_thinking": True}},
            "chat_template_kwargs.enable_thinking",
            "leave chat_template_kwargs.enable_thinking out",
        ),
    ],
)
def test_a_model_that_does_not_think_names_the_field_that_was_sent(
    serve: Serve, fields: dict[str, object], param: str, remedy: str
) -> None:
    running = serve("Just an answer.", thinks=False)
    error = refused(running, openai.BadRequestError, **fields)
    assert (error["code"], error["param"]) == ("reasoning_unsupported", param)
    assert error["message"].endswith(remedy)


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_thinking_tokens", 4), ("grace_tokens", 4), ("close_text", "\n</think>\n\n")],
)
def test_a_model_that_does_not_think_has_no_options_of_thought(
    serve: Serve, name: str, value: object
) -> None:
    running = serve("Just an answer.", thinks=False)
    error = refused(running, openai.BadRequestError, ponder={name: value})
    assert (error["code"], error["param"]) == ("reasoning_unsupported", f"ponder.{name}")
    assert error["message"] == f"this model does not think: leave ponder.{name} out"
    unread = serve("Just an answer.", thinks=False, unread="<odd>")
    error = refused(unread, openai.BadRequestError, ponder={name: value})
    assert f"leave ponder.{name} out, or describe them in a ponder.json" in error["message"]
    reply = running.ask(ponder={"min_thinking_tokens": 0, "grace_tokens": 0, "close_text": None})
    assert reply.choices[0].message.content == "Just an answer."


def test_a_prompt_that_fills_the_context_is_refused(serve: Serve) -> None:
    running = serve(max_model_len=64)
    error = refused(running, openai.BadRequestError, content="word " * 200)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"guided_json": {}}, "guided_json"),
        ({"ponder": {"deadline_ms": 0}}, "ponder.deadline_ms"),
        ({"ponder": {"early_exit": {"method": "vote"}}}, "ponder.early_exit.method"),
        ({"ponder": {"holdout": "always"}}, "ponder.holdout"),
        ({"ponder": {"scope": ""}}, "ponder.scope"),
        ({"temperature": 3}, "temperature"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0"),
        ({"n": 0}, "n"),
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 5}}, "thinking"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"skip_special_tokens": False}, "skip_special_tokens"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"min_tokens": 4090}, "min_tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    serve: Serve, fields: dict[str, object], param: str
) -> None:
    error = refused(serve(), openai.BadRequestError, **fields)
    assert (error["code"], error["param"]) == ("invalid_request", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"top_logprobs": 3},
        {"stop": [""]},
        {"min_tokens": 9, "max_completion_tokens": 8},
        {"chat_template_kwargs": {"enable_thinking": "no"}},
        {"ponder": {"min_answer_tokens": 9, "max_answer_tokens": 8}},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_combinations_that_contradict_are_refused(serve: Serve, fields: dict[str, object]) -> None:
    assert refused(serve(), openai.BadRequestError, **fields)["code"] == "invalid_request"


def test_unknown_paths_and_methods_have_the_same_shape(serve: Serve) -> None:
    url = serve().url
    assert httpx.get(f"{url}/nowhere").json()["error"]["code"] == "not_found"
    assert httpx.get(f"{url}/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"
    for path in ("models", "models/tiny", "models/some/one", "ponder/savings", "ponder/a/finish"):
        assert "lies under /v1" in httpx.get(f"{url}/{path}").json()["error"]["message"]
    assert "see /docs" in httpx.get(f"{url}/nowhere/models").json()["error"]["message"]


def test_a_body_that_is_not_json_is_refused(serve: Serve) -> None:
    answer = httpx.post(f"{serve().url}/v1/chat/completions", content=b"{not json")
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]["message"]


def test_keys_are_asked_for_and_checked(serve: Serve) -> None:
    running = serve(api_key="one,two")
    error = refused(running, openai.AuthenticationError)
    assert error["code"] == "invalid_api_key"
    for key in ("one", "two"):
        with running.client(key) as client:
            assert client.models.list().data[0].id == client.models.retrieve("tiny").id == "tiny"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("someone/else")
        headers = {"x-api-key": key}
        assert httpx.get(f"{running.url}/v1/models", headers=headers).status_code == 200
    assert httpx.get(f"{running.url}/healthz").status_code == 200


def test_a_wrong_key_is_told_from_a_missing_one(serve: Serve) -> None:
    running = serve(api_key="one")

    def said(authorization: str | None) -> str:
        headers = {"authorization": authorization} if authorization is not None else {}
        answer = httpx.get(f"{running.url}/v1/models", headers=headers)
        assert answer.status_code == 401
        message: str = answer.json()["error"]["message"]
        return message

    assert "is not one of this server's" in said("Bearer two")
    for missing in (None, "Bearer", "Basic one"):
        assert "needs an API key" in said(missing)
    authorise(running.service.settings.api_key, "Bearer  one \t")  # a blank after it is forgiven


def test_close_texts_must_be_allowed(serve: Serve) -> None:
    allowed = "\nTime is up.\n</think>\n\n"
    running = serve("thinking for ever", "ok", "ok", allowed_close_text=[allowed])
    error = refused(running, openai.PermissionDeniedError, ponder={"close_text": "</think>"})
    assert error["code"] == "option_not_allowed"
    reply = running.ask(budget=4, ponder={"close_text": allowed})
    assert reply.choices[0].message.content == "ok"
    ids = running.service.model.tokenizer.encode(allowed)
    assert running.engine.requests[-1][0][-len(ids) :] == ids


def test_other_models_are_not_found(serve: Serve) -> None:
    error = refused(serve(), openai.NotFoundError, model="gpt-5")
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_large_bodies_are_refused(serve: Serve) -> None:
    running = serve(max_body_bytes=2048)
    assert (
        refused(running, openai.APIStatusError, content="x" * 4096)["code"] == "request_too_large"
    )


def test_every_error_is_counted_from_zero(serve: Serve) -> None:
    """Prometheus sees no increase in a series that begins at 1."""
    lines = httpx.get(f"{serve('ok').url}/metrics").text.splitlines()
    for code, status in CODES.items():
        assert f'ponder_errors_total{{code="{code}",status="{status}"}} 0.0' in lines


def test_an_answer_that_stays_empty_is_an_error_nobody_repeats(serve: Serve) -> None:
    running = serve("thought</think>" + "\n" * 100)
    with pytest.raises(openai.InternalServerError) as caught:
        running.ask(ponder={"max_answer_tokens": 20})
    assert caught.value.body["code"] == "no_answer_produced"  # type: ignore[index]
    assert caught.value.response.headers["x-should-retry"] == "false"
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_empty_answers_total{arm="policy"} 1.0' in metrics
    assert 'ponder_errors_total{code="no_answer_produced",status="500"} 1.0' in metrics


def test_an_answer_that_had_no_room_is_the_requests_fault(serve: Serve) -> None:
    running = serve("thought</think>" + "\n" * 100)
    error = refused(running, openai.BadRequestError, ponder={"max_answer_tokens": 5})
    assert (error["code"], error["param"]) == ("answer_did_not_fit", "ponder.max_answer_tokens")
    assert "raise ponder.max_answer_tokens" in error["message"]
    running = serve("\n\n\n")
    error = refused(running, openai.BadRequestError, max_tokens=1)
    assert (error["code"], error["param"]) == ("answer_did_not_fit", "max_tokens")
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_empty_answers_total{arm="policy"} 0.0' in metrics


def some_blank(files: ModelFiles, blank: set[int]) -> Script:
    """A script whose requests of these numbers say nothing but blank."""
    vocabulary = HFTokenizer(files.directory)
    texts = ["\n" * 40 if number in blank else "42" for number in range(9)]
    return say(*texts, vocabulary=vocabulary)


@pytest.mark.parametrize("stream", [False, True])
def test_a_choice_without_an_answer_leaves_the_others_theirs(
    serve: Serve, files: ModelFiles, stream: bool
) -> None:
    running = serve(script=some_blank(files, {1, 3}))
    asked = {"n": 3, "budget": 0, "ponder": {"max_answer_tokens": 20}}
    reply = running.ask(stream=stream, **asked)
    said, errors = ["", "", ""], {}
    for part in reply if stream else [reply]:
        for choice in part.choices:
            said[choice.index] += (choice.delta if stream else choice.message).content or ""
            if choice.finish_reason:
                errors[choice.index] = choice.ponder["error"]
    assert said == ["42", "", "42"]
    assert errors == {0: None, 1: "no_answer_produced", 2: None}
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_empty_answers_total{arm="policy"} 1.0' in metrics


def test_no_choice_with_an_answer_is_an_error(serve: Serve, files: ModelFiles) -> None:
    running = serve(script=some_blank(files, set(range(9))))
    error = refused(
        running, openai.InternalServerError, n=3, budget=0, ponder={"max_answer_tokens": 20}
    )
    assert error["code"] == "no_answer_produced"


def test_a_prompt_next_to_the_context_is_counted_without_the_close(serve: Serve) -> None:
    tokens = serve().ask().usage.prompt_tokens
    running = serve(max_model_len=tokens + 2)
    error = refused(running, openai.BadRequestError)
    assert error["code"] == "context_length_exceeded"
    closing = len(running.service.model.checkpoint.compiled.close.ids)  # type: ignore[union-attr]
    assert f"the prompt has {tokens} and {closing} more that close its thought" in error["message"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("limit", "fields"),
    [
        (20, {"budget": 16, "ponder": {"min_answer_tokens": 10}}),
        (20, {"ponder": {"min_answer_tokens": 100}}),
        (5, {"min_tokens": 9}),
        (3, {"budget": 0}),  # known once the model has begun with blank
        (50, {"budget": 0}),
    ],
)
def test_a_limit_is_named_as_the_client_did(
    serve: Serve, name: str, stream: bool, limit: int, fields: dict[str, object]
) -> None:
    """Raising the other name would change nothing: the smaller of the two is the limit."""
    body = {"messages": HELLO, "stream": stream, name: limit, **fields}
    reply = httpx.post(f"{serve(chr(10) * 60).url}/v1/chat/completions", json=body)
    assert reply.status_code in (400, 500)
    error, other = reply.json()["error"], {"max_tokens", "max_completion_tokens"} - {name}
    assert name in error["message"] and not any(one in error["message"] for one in other)
    assert error["param"] in (name, "ponder.min_answer_tokens", None)


def test_log_probabilities_have_a_bound(serve: Serve) -> None:
    running = serve(max_model_len=100_000)
    asked = {"logprobs": True, "top_logprobs": 19, "n": 4}
    error = refused(running, openai.BadRequestError, **asked)
    assert error["param"] == "logprobs"
    assert "set max_completion_tokens to 50000 or less" in error["message"]
    assert running.ask(**asked, max_tokens=50_000).choices[3].logprobs.content


def test_more_alternatives_than_the_engine_tells_are_refused(serve: Serve) -> None:
    """Engines return fewer without a word, or fail the request."""
    running = serve()
    object.__setattr__(running.engine.facts, "max_logprobs", 5)
    for path, body, param in (
        ("chat/completions", {"messages": HELLO, "logprobs": True}, "top_logprobs"),
        ("completions", {"prompt": "hi"}, "logprobs"),
        ("responses", {"input": "hi", "include": ["message.output_text.logprobs"]}, "top_logprobs"),
    ):
        ask = partial(httpx.post, f"{running.url}/v1/{path}")
        for stream in (False, True):
            refusal = ask(json={**body, param: 6, "stream": stream})
            error = refusal.json()["error"]
            assert (refusal.status_code, error["param"]) == (400, param)
            assert f"{param} is 6" in error["message"] and "at most 5" in error["message"]
            assert ask(json={**body, param: 5, "stream": stream}).status_code == 200


def failing(after: int, error: type[Exception] = EngineError) -> object:
    """A script that fails after some tokens."""

    def script(_prompt: Sequence[int], _number: int) -> Iterator[int]:
        yield from [ord("a")] * after
        raise error("the scripted engine failed")

    return script


def test_an_engine_that_fails_a_request_is_a_bad_gateway(serve: Serve) -> None:
    running = serve(script=failing(3))
    with pytest.raises(openai.InternalServerError) as caught:
        running.ask()
    assert caught.value.status_code == 502
    assert caught.value.body["code"] == "engine_error"  # type: ignore[index]
    assert caught.value.response.headers["x-request-id"].startswith("chatcmpl-")
    with pytest.raises(openai.InternalServerError):
        serve(script=failing(0)).ask(stream=True)


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_planned_for_is_logged_and_hides_its_details(
    serve: Serve, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    running = serve(script=failing(0, ZeroDivisionError))
    with pytest.raises(openai.InternalServerError) as caught:
        running.ask(stream=stream)
    assert caught.value.body["code"] == "internal_error"
    assert "scripted" not in caught.value.body["message"]
    assert "ZeroDivisionError" in caplog.text


def test_a_failure_in_mid_stream_is_the_last_event(serve: Serve) -> None:
    running = serve(script=failing(3))
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert '"code": "engine_error"' in answer.text.strip().splitlines()[-1]
    assert "[DONE]" not in answer.text
    with pytest.raises(openai.APIError):
        running.ask(stream=True)


def test_one_failing_choice_fails_the_response(serve: Serve) -> None:
    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        if number == 1:
            raise EngineError("the scripted engine failed")
        yield from [ord("a")] * 100_000

    running = serve(script=script)
    with pytest.raises(openai.InternalServerError):
        running.ask(n=3)
    wait_until(lambda: running.engine.unfinished() == 0)


def test_over_the_admission_limit_is_overloaded(serve: Serve) -> None:
    running = serve(delay=0.05, max_running=2)
    with running.client() as client:
        stream = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True, n=2
        )
        next(iter(stream))
        with pytest.raises(openai.InternalServerError) as caught:
            running.ask()
        stream.close()
    assert caught.value.body["code"] == "overloaded"  # type: ignore[index]
    assert caught.value.response.headers["retry-after"] == "1"
    wait_until(lambda: running.service.running == 0)
    assert running.ask().choices[0].message.content


def test_a_draining_server_refuses_and_is_not_ready(serve: Serve) -> None:
    running = serve()
    running.service.gate.draining = True
    assert refused(running, openai.InternalServerError)["code"] == "draining"
    assert httpx.get(f"{running.url}/readyz").status_code == 503
    assert httpx.get(f"{running.url}/healthz").status_code == 200


def test_a_dead_engine_is_unavailable(serve: Serve) -> None:
    running = serve()
    running.engine.kill()
    with pytest.raises(openai.InternalServerError) as caught:
        running.ask()
    assert (caught.value.status_code, caught.value.body["code"]) == (503, "engine_dead")  # type: ignore[index]
    assert "send the request to another one" in caught.value.body["message"]  # type: ignore[index]


def test_a_request_that_takes_too_long_ends(serve: Serve) -> None:
    running = serve(delay=0.05, request_timeout=0.2)
    with pytest.raises(openai.InternalServerError) as caught:
        running.ask()
    assert (caught.value.status_code, caught.value.body["code"]) == (504, "deadline_exceeded")  # type: ignore[index]
    assert caught.value.response.headers["x-should-retry"] == "false"
    wait_until(lambda: running.engine.unfinished() == 0)
