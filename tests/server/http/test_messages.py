"""`/v1/messages` over HTTP, as Anthropic's own client sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import anthropic
import httpx
import pytest
from pydantic import BaseModel

from ponder.engine.protocol import EngineError
from ponder.engine.scripted import Script
from ponder.protocol.seal import unseal
from waiting import PATIENCE, wait_until

from .conftest import Running, Serve
from .test_savings import HOLDOUT, errors, series
from .test_tools import ARGUMENTS, TEMPLATE, called

ENDLESS = "thinking and thinking. " * 400
QUESTION: list[Any] = [{"role": "user", "content": "What is 40 + 2?"}]
ENABLED: Any = {"type": "enabled", "budget_tokens": 64}


def client(running: Running, key: str = "none", **more: Any) -> anthropic.Anthropic:
    more.setdefault("api_key", key)
    return anthropic.Anthropic(base_url=running.url, max_retries=0, timeout=PATIENCE, **more)


def ask(running: Running, **fields: Any) -> anthropic.types.Message:
    asked = {"model": "tiny", "max_tokens": 400, "messages": QUESTION, **fields}
    with client(running) as anthropics:
        message: anthropic.types.Message = anthropics.messages.create(**asked)
        return message


def stream(running: Running, **fields: Any) -> tuple[list[Any], anthropic.types.Message]:
    """All events, and the message that the client makes of them."""
    asked = {"model": "tiny", "max_tokens": 400, "messages": QUESTION, **fields}
    with client(running) as anthropics, anthropics.messages.stream(**asked) as events:
        return list(events), events.get_final_message()


def report(message: anthropic.types.Message) -> dict[str, Any]:
    said: dict[str, Any] = (message.model_extra or {})["ponder"]
    return said


def test_a_plain_message_is_text(serve: Serve) -> None:
    running = serve("The answer is 42.")
    message = ask(running)
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == "The answer is 42."  # type: ignore[union-attr]
    assert (message.id[:4], message.role, message.stop_reason) == ("msg_", "assistant", "end_turn")
    assert message._request_id == message.id
    assert report(message)["end_cause"] == "disabled"


def test_a_thought_within_its_budget(serve: Serve) -> None:
    running = serve(ENDLESS, "ok")
    message = ask(running, thinking={**ENABLED, "budget_tokens": 32}, stop_sequences=["and"])
    thought, text = message.content
    assert thought.type == "thinking" and thought.signature
    assert thought.thinking.startswith("thinking and")
    assert text.type == "text" and text.text == "ok"
    said, usage = report(message), message.usage
    assert (said["budget_effective"], said["end_cause"]) == (32, "budget")
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == said["thinking_tokens"] <= 32
    parts = ("thinking_tokens", "forced_tokens", "answer_tokens", "retry_tokens")
    assert usage.output_tokens == sum(said[part] for part in parts)


def test_a_budget_above_max_tokens_is_clamped(serve: Serve) -> None:
    message = ask(serve(ENDLESS, "ok"), max_tokens=100, thinking={**ENABLED, "budget_tokens": 4096})
    said = report(message)
    assert (said["budget_requested"], said["budget_source"]) == (4096, "max_completion_tokens")
    assert said["budget_effective"] < 100
    assert message.content[1].text == "ok"  # type: ignore[union-attr]


def test_an_adaptive_thought_has_the_servers_default_or_the_efforts(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", "ok", default_budget=40)
    adaptive = {"thinking": {"type": "adaptive"}, "max_tokens": 3000}
    message = ask(running, **adaptive)
    assert (report(message)["budget_effective"], message.content[0].type) == (40, "thinking")
    message = ask(running, **adaptive, output_config={"effort": "low"})
    assert (report(message)["budget_effective"], report(message)["budget_source"]) == (
        1024,
        "effort",
    )


def test_nothing_is_thought_unasked_whatever_the_default(serve: Serve) -> None:
    running = serve("The answer is 42.", default_budget=40)
    message = ask(running)
    assert report(message)["budget_effective"] == 0
    assert [block.type for block in message.content] == ["text"]


def test_a_model_that_does_not_think_takes_what_clients_send_to_every_model(serve: Serve) -> None:
    running = serve("Just an answer.", thinks=False)
    for fields in ({}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}):
        assert ask(running, **fields).content[0].text == "Just an answer."  # type: ignore[union-attr]
    with pytest.raises(anthropic.BadRequestError, match=r"leave thinking\.budget_tokens out"):
        ask(running, thinking=ENABLED)


def test_so_does_one_whose_thoughts_cannot_be_read(serve: Serve) -> None:
    running = serve("Just an answer.", thinks=False, unread="<odd>")
    message = ask(running)
    assert message.content[0].text == "Just an answer."  # type: ignore[union-attr]
    said = report(message)
    assert (said["end_cause"], said["budget_source"]) == ("unread", "unread")
    with pytest.raises(anthropic.BadRequestError, match="seems to think"):
        ask(running, thinking=ENABLED)


@pytest.mark.parametrize("chunk_sizes", [(1,), (3, 1, 7), (500,)])
@pytest.mark.parametrize("fields", [
    {},
    {"thinking": ENABLED},
    {"thinking": {**ENABLED, "budget_tokens": 3}},
    {"thinking": {**ENABLED, "display": "omitted"}},
    {"thinking": ENABLED, "stop_sequences": [" is"]},
    {"thinking": ENABLED, "max_tokens": 14},
    {"thinking": ENABLED, "include_reasoning": False},
])  # fmt: skip
def test_streaming_says_what_the_whole_message_says(
    serve: Serve, fields: dict[str, Any], chunk_sizes: tuple[int, ...]
) -> None:
    running = serve(chunk_sizes=chunk_sizes)
    fields = dict(fields)
    shown = fields.pop("include_reasoning", True)
    extra = {"include_reasoning": shown}
    whole = ask(running, **fields, extra_body=extra)
    events, message = stream(running, **fields, extra_body=extra)
    same = {"content", "model", "role", "stop_reason", "stop_sequence", "type", "usage"}
    assert message.model_dump(include=same) == whole.model_dump(include=same)
    (last,) = (event for event in events if event.type == "message_delta")
    assert last.ponder == report(whole)
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert (whole.content[0].type == "thinking") == bool("thinking" in fields and shown)


def test_events_have_their_lines(serve: Serve) -> None:
    running = serve()
    body = {"max_tokens": 9, "messages": QUESTION, "stream": True}
    answer = httpx.post(f"{running.url}/v1/messages?beta=true", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    events = [event.splitlines() for event in answer.text.strip().split("\n\n")]
    kinds = [line.removeprefix("event: ") for line, _ in events]
    assert [json.loads(data.removeprefix("data: "))["type"] for _, data in events] == kinds
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_stop_sequence_is_told(serve: Serve) -> None:
    message = ask(serve(), stop_sequences=["never", " is"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " is")
    message = ask(serve(), max_tokens=3)
    assert (message.stop_reason, message.stop_sequence) == ("max_tokens", None)


def test_a_thought_that_is_sent_back_makes_the_same_prompt(serve: Serve) -> None:
    """Shown, or in its signature alone: the template is given the same."""
    running = serve()
    later = {"role": "user", "content": "And 40 + 3?"}
    prompts = []
    for display in ("summarized", "omitted"):
        message = ask(running, thinking={**ENABLED, "display": display})
        said = {"role": "assistant", "content": [block.to_dict() for block in message.content]}
        thought = message.content[0]
        assert thought.type == "thinking" and bool(thought.thinking) == (display == "summarized")
        asked = [*QUESTION, said, later]
        ask(running, thinking=ENABLED, messages=asked)
        prompts.append(running.engine.requests[-1][0])
    assert prompts[0] == prompts[1]
    signature: Any = said["content"][0]["signature"]  # type: ignore[index]
    assert unseal(signature) == "First I add. Then I check it."


class Sum(BaseModel):
    total: int


def test_a_message_is_parsed(serve: Serve) -> None:
    running = serve("I add.</think>", '{"total": 42}')
    with client(running) as anthropics:
        message = anthropics.messages.parse(
            model="tiny",
            max_tokens=400,
            messages=QUESTION,
            output_format=Sum,
            thinking={"type": "adaptive"},
        )
    assert message.parsed_output == Sum(total=42)
    assert [block.type for block in message.content] == ["thinking", "text"]
    grammars = [sampling.grammar for _, sampling in running.engine.requests]
    assert grammars[0] is None
    assert grammars[1] is not None and '"total"' in grammars[1].rule


def schemed(name: str) -> Any:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"name": name, "description": "Tells.", "input_schema": schema}


TOOLS = [schemed("weather"), schemed("time")]


@pytest.fixture
def calling(serve: Serve) -> Running:
    """A server whose model thinks and calls `weather`, and then says what it found."""
    thought = "They ask for the weather, so I look it up.</think>\n\n"
    return serve(thought + called(), "Let me look. " + called(), template=TEMPLATE)


@pytest.mark.parametrize("budget", [0, 16, -1])
def test_a_call_comes_whole_and_in_parts(calling: Running, budget: int) -> None:
    fields = {"tools": TOOLS, "extra_body": {"budget": budget, "seed": 1}}
    message = ask(calling, **fields)
    call = message.content[-1]
    assert call.type == "tool_use" and call.id
    assert (call.name, call.input, message.stop_reason) == ("weather", ARGUMENTS, "tool_use")
    _, again = stream(calling, **fields)
    said, told = again.content[-1], (message.content[:-1], again.content[:-1])
    assert said.type == "tool_use" and (said.name, said.input) == (call.name, call.input)
    assert [block.to_dict() for block in told[0]] == [block.to_dict() for block in told[1]]
    assert (again.stop_reason, again.usage) == (message.stop_reason, message.usage)


def test_a_loop_of_calls_has_its_thoughts_in_the_prompt(serve: Serve) -> None:
    """A turn's thought, call and result are in the next prompt, which begins with the last one."""
    calling = serve("So I look it up.</think>\n\n" + called(), template=TEMPLATE, hint=False)
    messages, prompts = list(QUESTION), []
    fields: dict[str, Any] = {"tools": TOOLS, "thinking": {**ENABLED, "display": "omitted"}}
    for _ in range(3):
        message = ask(calling, messages=messages, **fields)
        prompts.append(calling.service.model.tokenizer.spell(calling.engine.requests[-1][0]))
        thought, call = message.content
        assert thought.type == "thinking" and thought.thinking == ""
        assert call.type == "tool_use"
        result = {
            "type": "tool_result",
            "tool_use_id": call.id,
            "content": "Rain.",
            "is_error": True,
        }
        messages.append({"role": "assistant", "content": message.content})
        messages.append({"role": "user", "content": [result, {"type": "text", "text": "Well?"}]})
    assert prompts[1].startswith(prompts[0]) and prompts[2].startswith(prompts[1])
    _, _, turns = prompts[2].split("<|im_start|>", 2)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "São Paulo", "days": 3}}\n'
    said = f"assistant\n<think>\nSo I look it up.\n</think>\n\n{call}</tool_call><|im_end|>\n"
    results = ["tool\nError: Rain.<|im_end|>\n", "user\nWell?<|im_end|>\n"]
    assert turns.split("<|im_start|>") == [
        *("user\nWhat is 40 + 2?<|im_end|>\n", said, *results, said, *results),
        "assistant\n<think>\n",
    ]


def test_a_call_that_is_cut_keeps_what_is_whole(serve: Serve) -> None:
    calling = serve("Let me look. " + called(), template=TEMPLATE)
    tokens = ask(calling, tools=TOOLS).usage.output_tokens
    fields = {"tools": TOOLS, "max_tokens": tokens - 9}
    message = ask(calling, **fields)
    text, call = message.content
    assert text.type == "text" and text.text == "Let me look."
    assert call.type == "tool_use" and call.input == {"city": "São Paulo"}
    assert message.stop_reason == "max_tokens"
    _, again = stream(calling, **fields)
    assert again.content[1].input == call.input  # type: ignore[union-attr]
    cut = {"role": "assistant", "content": message.content}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Say it all."}
    messages = [*QUESTION, cut, {"role": "user", "content": [result]}]
    assert ask(calling, tools=TOOLS, messages=messages).stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("choice", "held"), [("auto", False), ("any", True), ("tool", True), ("none", False)]
)
def test_a_choice_of_tools_is_kept(calling: Running, choice: str, held: bool) -> None:
    chosen = {"type": choice, **({"name": "weather"} if choice == "tool" else {})}
    message = ask(calling, tools=TOOLS, tool_choice=chosen)
    prompt, sampling = calling.engine.requests[-1]
    assert (sampling.grammar is not None) == held
    assert ('"time"' in calling.service.model.tokenizer.spell(prompt)) == (choice != "tool")
    assert (message.content[-1].type == "tool_use") == (choice != "none")


@pytest.mark.parametrize("settings", [{}, {"hint": False}, {"default_budget": 0}])
@pytest.mark.parametrize("fields", [
    {},
    {"thinking": ENABLED},
    {"thinking": {"type": "adaptive"}},
    {"system": "Be brief.", "tools": TOOLS, "thinking": ENABLED},
    {"system": [{"type": "text", "text": "Be brief."}], "thinking": {"type": "disabled"}},
])  # fmt: skip
def test_a_count_is_the_input_of_the_usage(
    serve: Serve, settings: dict[str, Any], fields: dict[str, Any]
) -> None:
    running = serve(**settings, template=TEMPLATE if "tools" in fields else None)
    with client(running) as anthropics:
        counted = anthropics.messages.count_tokens(model="tiny", messages=QUESTION, **fields)
    usage = ask(running, **fields).usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == len(running.engine.requests[0][0])


def test_a_held_out_conversation_is_counted_as_it_is_answered(serve: Serve) -> None:
    running = serve(**HOLDOUT)
    counts = set()
    for user in range(8):
        fields: Any = {"thinking": ENABLED, "extra_body": {"metadata": {"user_id": f"{user}"}}}
        with client(running) as anthropics:
            counted = anthropics.messages.count_tokens(model="tiny", messages=QUESTION, **fields)
        assert counted.input_tokens == ask(running, **fields).usage.input_tokens
        counts.add(counted.input_tokens)
    assert len(counts) == 2  # with the hint, and without


def test_what_is_longer_than_the_context_is_counted(serve: Serve) -> None:
    running = serve(max_model_len=64)
    long: list[Any] = [{"role": "user", "content": "word " * 200}]
    with client(running) as anthropics:
        assert anthropics.messages.count_tokens(model="tiny", messages=long).input_tokens > 200
        answer = anthropics.messages.with_raw_response.count_tokens(model="tiny", messages=long)
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
    with pytest.raises(anthropic.BadRequestError, match="shorten the messages"):
        ask(running, messages=long)
    assert running.engine.requests == []


def test_both_kinds_of_keys_are_taken(serve: Serve) -> None:
    running = serve(api_key="one")
    asked: Any = {"model": "tiny", "max_tokens": 9, "messages": QUESTION}
    for right in (client(running, "one"), client(running, auth_token="one", api_key=None)):
        assert right.messages.create(**asked).content
    for wrong in (client(running, "two"), client(running, auth_token="two", api_key=None)):
        with pytest.raises(anthropic.AuthenticationError) as caught:
            wrong.messages.create(**asked)
        assert caught.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
        with pytest.raises(anthropic.AuthenticationError):
            wrong.messages.count_tokens(model="tiny", messages=QUESTION)


def refused(running: Running, kind: type[anthropic.APIStatusError], **fields: Any) -> Any:
    """What is said of an error, in a body of Anthropic's shape."""
    with pytest.raises(kind) as caught:
        ask(running, **fields)
    body: Any = caught.value.body
    assert set(body) == {"type", "error", "request_id"} and body["type"] == "error"
    assert caught.value.request_id == body["request_id"]
    return body["error"]


def test_errors_have_anthropics_shape(serve: Serve) -> None:
    running = serve(max_body_bytes=4096, max_model_len=64)
    image: Any = [{"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}]
    error = refused(
        running, anthropic.BadRequestError, messages=[{"role": "user", "content": image}]
    )
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("messages.0.content.0: this server reads text only")
    assert (error["code"], error["param"]) == ("invalid_request", "messages.0.content.0")
    error = refused(running, anthropic.NotFoundError, model="claude")
    assert (error["type"], error["code"]) == ("not_found_error", "model_not_found")
    large = [{"role": "user", "content": "x" * 5000}]
    error = refused(running, anthropic.RequestTooLargeError, messages=large)
    assert error["type"] == "request_too_large"
    error = refused(
        running, anthropic.BadRequestError, messages=[{"role": "user", "content": "word " * 99}]
    )
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


def test_a_limit_is_called_as_it_was_sent(serve: Serve) -> None:
    asked = {
        "thinking": ENABLED,
        "max_tokens": 70,
        "extra_body": {"ponder": {"min_answer_tokens": 9}},
    }
    error = refused(serve(), anthropic.BadRequestError, **asked)
    assert error["code"] == "budget_leaves_no_answer"
    assert "thinking.budget_tokens 64 + " in error["message"]
    assert "but max_tokens is 70: raise it" in error["message"]


def test_a_full_server_is_overloaded_in_anthropics_words(serve: Serve) -> None:
    running = serve(delay=0.05, max_running=1)
    asked: Any = {"model": "tiny", "max_tokens": 400, "messages": QUESTION}
    with client(running) as anthropics, anthropics.messages.create(**asked, stream=True) as held:
        next(iter(held))
        with pytest.raises(anthropic.OverloadedError) as caught:
            ask(running)
    assert caught.value.status_code == 529
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index]
    wait_until(lambda: running.service.running == 0)
    assert errors(running) == {'code="overloaded",status="503"': 1.0}


def test_a_draining_server_is_overloaded_too(serve: Serve) -> None:
    running = serve()
    running.service.gate.draining = True
    assert refused(running, anthropic.OverloadedError)["code"] == "draining"


def failing(after: int) -> Script:
    """A script that fails after some tokens."""

    def script(_prompt: Sequence[int], _number: int) -> Iterator[int]:
        yield from [ord("a")] * after
        raise EngineError("the scripted engine failed")

    return script


def test_a_failure_in_mid_stream_is_the_last_event(serve: Serve) -> None:
    running = serve(script=failing(3))
    body = {"max_tokens": 9, "messages": QUESTION, "stream": True}
    answer = httpx.post(f"{running.url}/v1/messages", json=body)
    assert answer.status_code == 200
    line, data = answer.text.strip().split("\n\n")[-1].splitlines()
    said = json.loads(data.removeprefix("data: "))
    assert line == "event: error"
    assert (said["error"]["type"], said["error"]["code"]) == ("api_error", "engine_error")
    assert said["request_id"] == answer.headers["request-id"]
    with pytest.raises(anthropic.APIStatusError, match="the scripted engine failed"):
        stream(running)


def test_a_failure_before_the_first_event_is_an_error(serve: Serve) -> None:
    with pytest.raises(anthropic.InternalServerError) as caught:
        stream(serve(script=failing(0)))
    assert caught.value.status_code == 502


def test_other_methods_and_what_lies_below_speak_anthropics_words(serve: Serve) -> None:
    url = f"{serve().url}/v1/messages"
    assert httpx.get(url).json()["error"]["code"] == "method_not_allowed"
    assert httpx.post(f"{url}/batches", json={}).json()["error"]["type"] == "not_found_error"
    broken = httpx.post(url, content=b"{not json").json()["error"]
    assert (broken["type"], broken["code"]) == ("invalid_request_error", "invalid_request")


def test_models_are_listed_for_anthropics_client(serve: Serve) -> None:
    with client(serve()) as anthropics:
        (listed,) = anthropics.models.list()
        found = anthropics.models.retrieve("tiny")
        assert found == listed
        assert (found.id, found.type, found.display_name) == ("tiny", "model", "tiny")
        assert found.lifecycle == "active"
        assert found.created_at.timestamp() == (found.model_extra or {})["created"]
        page = anthropics.models.list(limit=5)
        assert (page.has_more, page.first_id, page.last_id) == (False, "tiny", "tiny")
        with pytest.raises(anthropic.NotFoundError):
            anthropics.models.retrieve("other")


def test_a_message_counts_as_a_chat_does(serve: Serve) -> None:
    """Every metric of requests, tokens and ends is the same, whichever dialect asked."""
    chats, messages = serve(ENDLESS, "ok", "ok"), serve(ENDLESS, "ok", "ok")
    for budget in (12, 0):
        chats.ask(QUESTION[0]["content"], budget=budget, max_tokens=400)
        ask(messages, extra_body={"budget": budget})

    def counted(running: Running) -> dict[str, dict[str, float]]:
        text = httpx.get(f"{running.url}/metrics").text
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ponder_")}
        of = ("requests", "tokens", "truncat", "ends", "choices", "budget")
        chosen = {name for name in names if any(part in name for part in of)}
        return {name: series(running, name) for name in sorted(chosen)}

    wait_until(lambda: sum(series(messages, "ponder_requests_total").values()) == 2)
    wait_until(lambda: sum(series(chats, "ponder_requests_total").values()) == 2)
    assert counted(messages) == counted(chats)
