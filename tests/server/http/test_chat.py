"""Chat completions over HTTP: shape, accounting, streams and clients that misbehave."""

from __future__ import annotations

import itertools
import json
import re
import socket
import tracemalloc
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import httpx
import openai
import pytest

from ponder.engine.protocol import Chunk, EngineRequest
from ponder.engine.scripted import ScriptedEngine
from ponder.protocol.response import ChatCompletion, ChatCompletionChunk
from ponder.server import streaming
from ponder.thought.reader import ThoughtReader
from waiting import wait_until

from .conftest import THOUGHT, Running, Serve

ENDLESS = "thinking and thinking. " * 400


def streamed(running: Running, **fields: object) -> tuple[dict[int, dict[str, str]], list[Any]]:
    """(reasoning and content by choice, all chunks) of a stream."""
    chunks = running.ask(stream=True, **fields)
    texts: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            said = texts.setdefault(choice.index, {"reasoning": "", "content": ""})
            said["content"] += choice.delta.content or ""
            reasoning = getattr(choice.delta, "reasoning", None)
            assert getattr(choice.delta, "reasoning_content", None) == reasoning
            said["reasoning"] += reasoning or ""
    return texts, chunks


def test_a_thought_and_its_answer(serve: Serve) -> None:
    reply = serve().ask()
    choice = reply.choices[0]
    assert choice.message.reasoning == "First I add. Then I check it."
    assert choice.message.reasoning_content == choice.message.reasoning
    assert choice.message.content == "The answer is 42."
    assert choice.finish_reason == "stop"
    assert choice.ponder["end_cause"] == "natural"
    assert choice.ponder["forced_tokens"] == 0


@pytest.mark.parametrize("chunk_sizes", [(1,), (3, 1, 7), (500,)])
@pytest.mark.parametrize("budget", [0, 1, 5, 12, -1])
def test_streaming_says_what_the_whole_reply_says(
    serve: Serve, budget: int, chunk_sizes: tuple[int, ...]
) -> None:
    running = serve(THOUGHT, "Best guess: 41.", chunk_sizes=chunk_sizes)
    whole = running.ask(budget=budget).choices[0]
    texts, chunks = streamed(running, budget=budget)
    assert texts[0]["content"] == whole.message.content
    assert texts[0]["reasoning"] == (whole.message.reasoning or "")
    last = chunks[-1].choices[0]
    assert (last.finish_reason, last.ponder) == (whole.finish_reason, whole.ponder)


def test_the_parts_sum_to_usage(serve: Serve) -> None:
    running = serve(ENDLESS, "ok")
    reply = running.ask(budget=10, n=3)
    choices, usage = reply.choices, reply.usage
    parts = ("thinking_tokens", "forced_tokens", "answer_tokens", "retry_tokens", "probe_tokens")
    assert usage.completion_tokens == sum(c.ponder[part] for c in choices for part in parts)
    assert usage.completion_tokens_details.reasoning_tokens == 30
    assert usage.prompt_tokens == len(running.engine.requests[0][0])
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_headers_tell_a_single_choice(serve: Serve) -> None:
    running = serve(ENDLESS, "ok")
    body = {"messages": [{"role": "user", "content": "hi"}], "budget": 7}
    headers = httpx.post(f"{running.url}/v1/chat/completions", json=body).headers
    assert headers["x-ponder-budget"] == "7"
    assert headers["x-ponder-end-cause"] == "budget"
    two = httpx.post(f"{running.url}/v1/chat/completions", json={**body, "n": 2}).headers
    assert "x-ponder-budget" not in two


def test_choices_have_their_own_thoughts_and_seeds(serve: Serve) -> None:
    running = serve(ENDLESS, "ok")
    texts, _ = streamed(running, n=3, budget=5, seed=7)
    assert sorted(texts) == [0, 1, 2]
    first = [sampling.seed for _, sampling in running.engine.requests[:3]]
    assert first == [7, 8, 9]


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking_token_budget": 6},
        {"budget": 6},
        {"thinking_budget": 6},
        {"thinking": {"type": "enabled", "budget_tokens": 6}},
        {"reasoning": {"max_tokens": 6}},
        {"nvext": {"max_thinking_tokens": 6}},
        {"budget": 6, "thinking_budget": 6, "reasoning_effort": "high"},
    ],
)
def test_every_dialect_is_one_budget(serve: Serve, fields: dict[str, object]) -> None:
    choice = serve(ENDLESS, "ok").ask(**fields).choices[0]
    assert choice.ponder["budget_requested"] == 6
    assert choice.ponder["thinking_tokens"] == 6
    assert choice.ponder["budget_source"] == "request"


@pytest.mark.parametrize(
    "fields",
    [
        {"budget": 0},
        {"reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_zero_answers_without_thinking(serve: Serve, fields: dict[str, object]) -> None:
    choice = serve("At once.").ask(**fields).choices[0]
    assert choice.message.content == "At once."
    assert choice.message.reasoning is None
    assert choice.ponder["end_cause"] == "disabled"
    assert choice.ponder["thinking_tokens"] == 0


def test_efforts_ceilings_and_limits_name_their_source(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", budget_ceiling=200)
    assert running.ask(reasoning_effort="minimal").choices[0].ponder["budget_source"] == "effort"
    running = serve(ENDLESS, "ok", budget_ceiling=20)
    ceiling = running.ask(reasoning_effort="high").choices[0].ponder
    assert (ceiling["budget_source"], ceiling["budget_effective"]) == ("ceiling", 20)
    running = serve(ENDLESS, "ok", default_budget=9)
    assert running.ask().choices[0].ponder["budget_source"] == "default"
    running = serve(ENDLESS, "ok")
    limited = running.ask(max_completion_tokens=40).choices[0]
    assert limited.ponder["budget_source"] == "max_completion_tokens"
    assert limited.ponder["end_cause"] == "length"
    assert limited.message.content == "ok"


def test_a_limit_without_room_for_a_thought_disables_it(serve: Serve) -> None:
    report = serve("At once.").ask(budget=64, max_completion_tokens=4).choices[0].ponder
    assert (report["budget_requested"], report["budget_effective"]) == (64, 0)
    assert (report["end_cause"], report["budget_source"]) == ("disabled", "max_completion_tokens")


def test_null_fields_are_not_given(serve: Serve) -> None:
    running = serve()
    names = ("n", "stream", "presence_penalty", "seed", "stop", "stream_options", "logit_bias")
    body = {"messages": [{"role": "user", "content": "hi"}], **dict.fromkeys(names)}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "The answer is 42."


def test_reasoning_can_be_hidden_but_is_counted(serve: Serve) -> None:
    running = serve()
    reply = running.ask(include_reasoning=False)
    assert reply.choices[0].message.reasoning is None
    assert reply.usage.completion_tokens_details.reasoning_tokens > 0
    texts, _ = streamed(running, include_reasoning=False)
    assert texts[0] == {"reasoning": "", "content": "The answer is 42."}


def test_the_retry_of_an_empty_answer_is_invisible(serve: Serve) -> None:
    running = serve("thought</think>\n\n", "42")
    texts, chunks = streamed(running)
    assert texts[0]["content"] == "42"
    assert chunks[-1].choices[0].ponder["retry_tokens"] == 1
    assert running.engine.requests[1][1].min_tokens == 1


def test_stop_strings_hold_for_the_answer_only(serve: Serve) -> None:
    running = serve("STOP in a thought</think>\n\nbefore STOP after")
    reply = running.ask(stop=["STOP"]).choices[0]
    assert reply.message.reasoning == "STOP in a thought"
    assert reply.message.content == "before "
    assert reply.finish_reason == "stop"
    legitimate = running.ask(stop=["before"]).choices[0]
    assert legitimate.message.content == ""


def test_logprobs_cover_the_answer(serve: Serve) -> None:
    running = serve()
    whole = running.ask(logprobs=True, top_logprobs=1).choices[0]
    assert "".join(e.token for e in whole.logprobs.content).strip() == whole.message.content
    _, chunks = streamed(running, logprobs=True)
    entries = [
        entry.token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for entry in choice.logprobs.content
    ]
    assert "".join(entries) == "".join(e.token for e in whole.logprobs.content)


def test_a_whole_reply_takes_no_more_memory_than_it_is_long(serve: Serve) -> None:
    """Its text is made as it comes, and nothing else is kept."""
    running = serve("x " * 200, max_model_len=100_000)
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "budget": 0, "n": 8, "max_tokens": 400, "ignore_eos": True,
        "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    url = f"{running.url}/v1/chat/completions"
    with httpx.stream("POST", url, json={**body, "max_tokens": 4}, timeout=60) as answer:
        assert answer.read()
    tracemalloc.start()
    try:
        with httpx.stream("POST", url, json=body, timeout=120) as answer:
            size = sum(map(len, answer.iter_bytes(1 << 16)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 3_000_000
    assert most < 3 * size


def test_a_whole_reply_is_a_chat_completion(serve: Serve) -> None:
    running = serve(THOUGHT.replace("42", '42 "\\\n\U0001f642'))
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "logprobs": True}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
    assert int(answer.headers["content-length"]) == len(answer.content)
    reply = ChatCompletion.model_validate_json(answer.content)
    assert json.loads(reply.model_dump_json(exclude_unset=True)) == answer.json()
    assert list(answer.json()) == list(ChatCompletion.model_fields)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.choices[1].message.content == 'The answer is 42 "\\\n\U0001f642.'


def test_events_are_chunks_and_usage_comes_last(serve: Serve) -> None:
    running = serve()
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    text = httpx.post(f"{running.url}/v1/chat/completions", json=body).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate_json(event) for event in events[:-1]]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_usage_is_said_all_along_where_it_is_asked_for(serve: Serve) -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    text = httpx.post(f"{serve().url}/v1/chat/completions", json=body).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    chunks = [ChatCompletionChunk.model_validate_json(event) for event in events[:-1]]
    counts = [
        (chunk.usage.completion_tokens, chunk.usage.total_tokens) for chunk in chunks if chunk.usage
    ]
    assert len(counts) == len(chunks)
    assert counts == sorted(counts)
    assert counts[0][0] < counts[-1][0]
    assert {total - spent for spent, total in counts} == {chunks[-1].usage.prompt_tokens}


def test_silence_is_filled_with_comments(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.02)
    running = serve("a</think>b", delay=0.1)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    text = httpx.post(f"{running.url}/v1/chat/completions", json=body).text
    assert ": keep-alive\n\n" in text
    assert text.endswith("data: [DONE]\n\n")


def test_metrics_say_what_the_responses_said(serve: Serve) -> None:
    running = serve(ENDLESS, "ok")
    replies = [running.ask(budget=budget, n=n) for budget, n in ((3, 1), (9, 2), (0, 1))]
    text = httpx.get(f"{running.url}/metrics").text

    def value(name: str) -> float:
        label = "" if "{" in name else '{arm="policy"}'
        found = re.search(rf"^{re.escape(name + label)} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found[1])

    usages = [reply.usage for reply in replies]
    thinking = sum(usage.completion_tokens_details.reasoning_tokens for usage in usages)
    assert value("ponder_thinking_tokens_total") == thinking == 21
    assert value("ponder_thinking_tokens_sum") == thinking
    assert value("ponder_thinking_tokens_count") == 4
    assert value("ponder_e2e_request_latency_seconds_count") == len(replies)
    assert re.search(r'^ponder_build_info{model="tiny",version=".+"} 1\.0$', text, re.MULTILINE)
    assert value("ponder_prompt_tokens_total") == sum(usage.prompt_tokens for usage in usages)
    kinds = ("thinking", "answer", "forced", "retry", "probe")
    completion = sum(value(f"ponder_{kind}_tokens_total") for kind in kinds)
    assert completion == sum(usage.completion_tokens for usage in usages)
    budget = 'ponder_requests_total{arm="policy",end_cause="budget"}'
    assert value(budget) == 3
    assert value('ponder_truncations_total{arm="policy",cause="budget"}') == 3
    assert value("ponder_budget_violations_total") == 0
    assert value("ponder_empty_answers_total") == 0


def test_a_client_that_goes_away_stops_the_engine(serve: Serve) -> None:
    running = serve(ENDLESS, delay=0.01)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()  # kept: a collected generator closes the connection
        next(lines)
        assert running.engine.unfinished() == 1
    wait_until(lambda: running.engine.unfinished() == 0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{running.url}/v1/chat/completions", json={**body, "stream": False}, timeout=0.2
        )
    wait_until(lambda: running.engine.unfinished() == 0)
    assert running.service.running == 0


def test_a_slow_reader_does_not_let_the_engine_overrun(serve: Serve) -> None:
    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        return itertools.repeat(ord("a")) if number == 0 else iter([ord("b")])

    running = serve(script=script, max_model_len=100_000, loop_exit=False)
    head = b'{"messages": [{"role": "user", "content": "hi"}], "stream": true, '
    body = head + b'"budget": 30000, "max_completion_tokens": 31000, "ponder": {"grace_tokens": 0}}'
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        slow.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        wait_until(lambda: len(running.engine.requests) == 2)  # read nothing; the cut comes anyway
        assert running.engine.requests[1][1].max_tokens <= 1000
    wait_until(lambda: running.engine.unfinished() == 0)


def test_models_tell_what_they_can_do(serve: Serve) -> None:
    running = serve(budget_ceiling=100)
    card = httpx.get(f"{running.url}/v1/models").json()["data"][0]
    assert card["id"] == "tiny"
    assert card["ponder"]["thinks"] is True
    assert card["ponder"]["budget_ceiling"] == 100


def test_cors_is_off_unless_asked_for(serve: Serve) -> None:
    origin = {"Origin": "https://example.org"}
    assert (
        "access-control-allow-origin"
        not in httpx.get(f"{serve().url}/readyz", headers=origin).headers
    )
    running = serve(cors_origin=["https://example.org"])
    allowed = httpx.get(f"{running.url}/readyz", headers=origin).headers
    assert allowed["access-control-allow-origin"] == "https://example.org"


def test_pages_can_read_why_they_are_refused(serve: Serve) -> None:
    running = serve(cors_origin=["https://example.org"])
    url, origin = f"{running.url}/v1/chat/completions", {"Origin": "https://example.org"}
    refused = [
        httpx.post(url, headers={**origin, "Content-Type": "text/plain"}, content=b"{}"),
        httpx.post(url, headers={**origin, "Host": "elsewhere.example"}, json={}),
        httpx.post(url, headers=origin, json={}),
        httpx.get(f"{running.url}/v1/nothing", headers=origin),
    ]
    assert [answer.status_code for answer in refused] == [415, 403, 400, 404]
    for answer in refused:
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert answer.headers["x-request-id"]


def test_a_long_prompt_is_read_beside_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread: what it answers is the same."""
    running = serve()
    inline = running.ask("What is 40 + 2? " * 10)
    monkeypatch.setattr("ponder.server.answering.LONG_BYTES", 1)
    threaded = running.ask("What is 40 + 2? " * 10)
    assert threaded.usage == inline.usage
    assert threaded.choices[0].message == inline.choices[0].message
    with pytest.raises(openai.BadRequestError, match="context"):
        running.ask("What is 40 + 2? " * 10_000)


def test_a_thought_that_the_reader_miscounts_is_a_violation(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit counts the ids that the answer followed on, not what the reader made of them."""

    class Blind(ThoughtReader):
        def _count(self, ids: list[int], text: str) -> bool:
            return True

    monkeypatch.setattr("ponder.thought.thought.ThoughtReader", Blind)
    running = serve()
    assert running.ask(budget=3).choices[0].ponder["thinking_tokens"] == 0
    text = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_budget_violations_total{arm="policy"} 1.0' in text


def test_a_block_of_thought_that_the_answer_opens_is_reasoning(serve: Serve) -> None:
    """In a stream in the order it comes; the same parts whole, and one count for both blocks."""
    running = serve("I add.</think>It is <think>wait, no</think>13.")
    texts, chunks = streamed(running)
    thinks = [
        delta.content is None
        for chunk in chunks
        for delta in (choice.delta for choice in chunk.choices)
        if delta.content or getattr(delta, "reasoning", None)
    ]
    assert [kind for kind, _ in groupby(thinks)] == [True, False, True, False]
    whole = running.ask()
    choice = whole.choices[0]
    said = {"reasoning": choice.message.reasoning, "content": choice.message.content}
    assert said == texts[0] == {"reasoning": "I add.wait, no", "content": "It is 13."}
    counted = whole.usage.completion_tokens_details.reasoning_tokens
    encode = running.service.model.tokenizer.encode
    thought = len(encode("I add.")) + len(encode("wait, no"))
    assert counted == choice.ponder["thinking_tokens"] == thought


@pytest.mark.parametrize(
    "asked",
    [{"n": 3}, {"ponder": {"strategy": {"method": "self_consistency", "n": 3}}}],
    ids=["choices", "strategy"],
)
def test_cached_tokens_are_those_that_no_choice_had_read_before(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object]
) -> None:
    """The first request fills the cache for the others: their hits are not the reply's."""
    generate, seen = ScriptedEngine.generate, [5]

    async def caching(self: ScriptedEngine, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        cached = min(max(seen), len(request.prompt))
        seen.append(len(request.prompt))
        async for chunk in generate(self, request):
            yield replace(chunk, cached_tokens=cached)

    monkeypatch.setattr(ScriptedEngine, "generate", caching)
    usage = serve().ask(**asked).usage
    assert usage.prompt_tokens_details.cached_tokens == 5 < usage.prompt_tokens


def test_a_salt_keeps_prompts_apart_in_the_cache(serve: Serve) -> None:
    running = serve(THOUGHT)
    running.ask(cache_salt="mine", thinking_token_budget=4)
    running.ask()
    salts = [sampling.cache_salt for _, sampling in running.engine.requests]
    assert salts == ["mine", "mine", None]
