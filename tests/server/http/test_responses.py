"""`/v1/responses` over HTTP, through OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from ponder.engine.protocol import EngineError
from ponder.protocol.seal import unseal
from waiting import wait_until

from .conftest import THOUGHT, Running, Serve
from .test_savings import errors, series
from .test_tools import ARGUMENTS, TEMPLATE, TOOLS, called

ENDLESS = "thinking and thinking. " * 400
OFFICIAL = {"include", "instructions", "max_output_tokens", "reasoning", "text", "tools", "top_p"}
OFFICIAL |= {"tool_choice", "top_logprobs", "temperature", "stream", "user", "extra_headers"}


def respond(running: Running, given: Any = "What is 40 + 2?", **fields: Any) -> Any:
    """One response, or the list of its events."""
    official = {name: fields.pop(name) for name in list(fields) if name in OFFICIAL}
    with running.client() as client:
        reply = client.responses.create(model="tiny", input=given, extra_body=fields, **official)
        return list(reply) if official.get("stream") else reply


def final(running: Running, given: Any = "What is 40 + 2?", **fields: Any) -> Any:
    """The response that the client's own helper makes of a stream."""
    official = {name: fields.pop(name) for name in list(fields) if name in OFFICIAL}
    with (
        running.client() as client,
        client.responses.stream(model="tiny", input=given, extra_body=fields, **official) as stream,
    ):
        return stream.get_final_response()


def said(response: Response) -> list[Any]:
    """Its items, without ids and what the client's helper adds."""
    items: Any = response.to_dict()["output"]
    for item in items:
        for name in ("id", "call_id", "parsed_arguments"):
            item.pop(name, None)
        for part in item.get("content", ()):
            part.pop("parsed", None)
    return list(items)


def test_a_thought_and_its_answer(serve: Serve) -> None:
    response = respond(serve())
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.model) == ("response", "completed", "tiny")
    assert response.output_text == "The answer is 42."
    thought, message = response.output
    assert (thought.type, thought.summary) == ("reasoning", [])
    assert thought.content[0].text == "First I add. Then I check it."
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert response.ponder["end_cause"] == "natural"
    assert response.store is False


@pytest.mark.parametrize("chunk_sizes", [(1,), (3, 1, 7)])
@pytest.mark.parametrize("budget", [0, 5, 12, -1])
def test_streaming_says_what_the_whole_response_says(
    serve: Serve, budget: int, chunk_sizes: tuple[int, ...]
) -> None:
    running = serve(THOUGHT, "Best guess: 41.", chunk_sizes=chunk_sizes)
    whole = respond(running, reasoning={"max_tokens": budget})
    streamed = final(running, reasoning={"max_tokens": budget})
    assert said(streamed) == said(whole)
    assert streamed.usage == whole.usage
    assert streamed.ponder == whole.ponder
    assert whole.ponder["thinking_tokens"] == whole.usage.output_tokens_details.reasoning_tokens
    assert budget < 0 or whole.ponder["thinking_tokens"] <= budget
    assert bool([item for item in whole.output if item.type == "reasoning"]) == (budget != 0)
    chat = running.ask(budget=budget)
    assert chat.choices[0].message.content == whole.output_text
    assert chat.choices[0].ponder == whole.ponder
    assert chat.usage.prompt_tokens == whole.usage.input_tokens
    assert chat.usage.completion_tokens == whole.usage.output_tokens


def test_a_limit_that_cuts_an_answer_makes_it_incomplete(serve: Serve) -> None:
    running = serve("A thought.</think>\n\n" + "and so on " * 50)
    response = respond(running, max_output_tokens=40)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 40
    assert response.output[-1].status == "incomplete"
    events = respond(running, max_output_tokens=40, stream=True)
    assert events[-1].type == "response.incomplete"
    assert said(events[-1].response) == said(response)


def test_a_budget_that_cuts_a_thought_leaves_the_response_complete(serve: Serve) -> None:
    response = respond(serve(ENDLESS, "ok"), thinking_token_budget=8)
    assert response.status == "completed"
    assert response.ponder["end_cause"] == "budget"
    assert [item.status for item in response.output] == ["completed", "completed"]


@pytest.mark.parametrize("way", ["text", "sealed", "both"])
def test_a_thought_sent_back_makes_the_prompt_that_a_chat_makes(serve: Serve, way: str) -> None:
    running = serve()
    first = respond(running, include=["reasoning.encrypted_content"])
    items = [item.to_dict() for item in first.output]
    assert unseal(items[0]["encrypted_content"]) == "First I add. Then I check it."
    if way == "text":
        del items[0]["encrypted_content"]
    if way == "sealed":
        del items[0]["content"]
    again = {"role": "user", "content": "Sure?"}
    asked = {"role": "user", "content": "What is 40 + 2?"}
    respond(running, [asked, *items, again])
    replied = running.ask().choices[0].message.to_dict()
    running.ask(messages=[asked, replied, again])
    prompts = [prompt for prompt, _ in running.engine.requests]
    assert prompts[1] == prompts[3]
    assert len(prompts[1]) > len(prompts[0]) == len(prompts[2])


def test_instructions_and_developers_are_one_system_turn(serve: Serve) -> None:
    running = serve()
    user = {"role": "user", "content": "Hi"}
    respond(running, [{"role": "developer", "content": "b"}, user], instructions="a")
    running.ask(messages=[{"role": "system", "content": "a\n\nb"}, user])
    first, second = (prompt for prompt, _ in running.engine.requests)
    assert first == second


def test_events_have_their_names_and_no_done(serve: Serve) -> None:
    body = {"input": "Hi", "stream": True}
    text = httpx.post(f"{serve().url}/v1/responses", json=body).text
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
    assert "[DONE]" not in text
    assert event["response"]["ponder"]["end_cause"] == "natural"


def test_log_probabilities_are_those_of_a_chat(serve: Serve) -> None:
    running = serve()
    include = ["message.output_text.logprobs"]
    response = respond(running, include=include, top_logprobs=2)
    chat = running.ask(logprobs=True, top_logprobs=2)
    told = response.output[-1].content[0].logprobs
    assert [entry.to_dict() for entry in told] == [
        entry.to_dict() for entry in chat.choices[0].logprobs.content
    ]
    events = respond(running, include=include, top_logprobs=2, stream=True)
    assert said(events[-1].response) == said(response)
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [entry.token for event in deltas for entry in event.logprobs] == [
        entry.token for entry in told
    ]
    assert respond(running).output[-1].content[0].logprobs == []


def test_a_failure_in_mid_stream_is_a_failed_response(serve: Serve) -> None:
    def script(_prompt: Sequence[int], _number: int) -> Iterator[int]:
        yield from b"A thought, and then"
        raise EngineError("it failed")

    running = serve(script=script)
    events = respond(running, stream=True)
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.error.code == "engine_error"
    assert last.response.output[0].type == "reasoning"
    wait_until(lambda: errors(running) != {})


def test_what_fails_before_its_first_token_is_an_error(serve: Serve) -> None:
    def script(_prompt: Sequence[int], _number: int) -> Iterator[int]:
        raise EngineError("it failed")
        yield 0

    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            respond(serve(script=script), stream=stream)
        assert caught.value.code == "engine_error"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"input": []}, "input", "must not be empty"),
        ({"input": "7 " * 9000}, "input", "shorten the input"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ({"background": True}, "background", "send stream: true"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input.0.content.0.type",
            "reads text only",
        ),
        ({"budget": 8, "reasoning": {"max_tokens": 9}}, "budget", "the budgets disagree"),
        (
            {"thinking_token_budget": 30, "ponder": {"min_answer_tokens": 8}},
            "max_output_tokens",
            "but max_output_tokens is 20: raise it",
        ),
        ({"model": "other"}, "model", "ask for 'tiny'"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x", "not for a request to set"),
    ],
)
def test_errors_speak_the_words_of_this_endpoint(
    serve: Serve, fields: dict[str, Any], param: str, says: str
) -> None:
    body = {"input": "Hi", "max_output_tokens": 20, **fields}
    answer = httpx.post(f"{serve().url}/v1/responses", json=body)
    error = answer.json()["error"]
    assert answer.status_code in (400, 404), error
    assert (error["param"], says in error["message"]) == (param, True), error


def test_a_response_is_counted_like_a_chat(serve: Serve) -> None:
    kinds = ("requests", "prompt_tokens", "thinking_tokens", "answer_tokens", "truncations")
    names = [f"ponder_{kind}_total" for kind in kinds]
    counted = []
    for ask in (lambda running: running.ask(budget=5), lambda running: respond(running, budget=5)):
        running = serve(THOUGHT, "ok")
        ask(running)
        wait_until(lambda running=running: sum(series(running, names[0]).values()) == 1)
        counted.append({name: series(running, name) for name in names})
    assert counted[0] == counted[1]
    assert sum(counted[1]["ponder_thinking_tokens_total"].values()) == 5


def test_a_conversation_is_held_out_by_its_cache_key_or_session(serve: Serve) -> None:
    running = serve(holdout=0.5, holdout_key="0123456789abcdef", default_budget=9)
    for number in range(8):
        cached = respond(running, prompt_cache_key=f"c{number}")
        assert (
            cached.ponder["arm"]
            == running.service.planner.holdout.assign(f"prompt_cache_key:c{number}").arm
        )
        session = respond(running, extra_headers={"session-id": f"s{number}"})
        assert (
            session.ponder["arm"]
            == running.service.planner.holdout.assign(f"session-id:s{number}").arm
        )


def test_the_input_of_a_response_is_counted_as_it_will_be(serve: Serve) -> None:
    running = serve(template=TEMPLATE)
    asked: dict[str, Any] = {"input": "Hi", "instructions": "Be brief.", "tools": [WEATHER]}
    with running.client() as client:
        counted = client.responses.input_tokens.count(model="tiny", **asked)
    given = asked.pop("input")
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == respond(running, given, **asked).usage.input_tokens
    assert len(running.engine.requests) == 1


def test_a_response_can_be_rated(serve: Serve) -> None:
    running = serve()
    response = respond(running)
    rated = httpx.post(f"{running.url}/v1/ponder/{response.id}/feedback", json={"score": 1})
    assert rated.status_code == 200


# -- tools and formats ---------------------------------------------------------------------

WEATHER = {
    "type": "function", "name": "weather", "description": "Tells the weather.", "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip
PATCH = {"type": "custom", "name": "patch", "description": "Changes a file."}
SPACE = {"type": "namespace", "name": "sky", "description": "d", "tools": [WEATHER]}
LOOK = "They ask for the weather, so I look it up.</think>\n\n"


@pytest.mark.parametrize("budget", [0, 16, -1])
def test_a_call_is_an_item(serve: Serve, budget: int) -> None:
    running = serve(LOOK + called(), "Let me look. " + called(), template=TEMPLATE)
    fields: dict[str, Any] = {"tools": [WEATHER], "thinking_token_budget": budget}
    whole = respond(running, **fields)
    call = whole.output[-1]
    assert (call.type, call.name, call.status) == ("function_call", "weather", "completed")
    assert json.loads(call.arguments) == ARGUMENTS
    assert whole.status == "completed"
    streamed = final(running, **fields)
    assert said(streamed) == said(whole)
    chat = running.ask(tools=TOOLS[:1], budget=budget)
    assert chat.choices[0].message.tool_calls[0].function.arguments == call.arguments
    assert chat.choices[0].ponder == whole.ponder


def test_a_call_and_its_result_go_on(serve: Serve) -> None:
    running = serve(LOOK + called(), template=TEMPLATE)
    asked = {"role": "user", "content": "How is the weather?"}
    first = respond(running, [asked], tools=[WEATHER])
    call = first.output[-1]
    items = [asked, *(item.to_dict() for item in first.output)]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."})
    respond(running, items, tools=[WEATHER])
    prompt = running.service.model.tokenizer.decode(running.engine.requests[-1][0])
    assert "They ask for the weather" in prompt
    assert "Sunny." in prompt
    assert called() in prompt


def test_a_cut_call_is_incomplete(serve: Serve) -> None:
    running = serve(LOOK, called(), template=TEMPLATE)
    fields: dict[str, Any] = {"tools": [WEATHER], "budget": 0, "max_output_tokens": 30}
    events = respond(running, stream=True, **fields)
    whole = respond(running, **fields)
    assert whole.status == "incomplete"
    assert whole.output[-1].type == "function_call"
    assert whole.output[-1].status == "incomplete"
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output[-1].arguments == whole.output[-1].arguments != ""


def test_custom_tools_and_namespaces_are_called_by_the_clients_names(serve: Serve) -> None:
    calls = called("patch", {"input": 'a "b"\n'}) + "\n" + called("sky__weather")
    running = serve(LOOK + calls, template=TEMPLATE)
    tools = [PATCH, SPACE, {"type": "web_search"}]
    for response in (
        respond(running, tools=tools),
        respond(running, tools=tools, stream=True)[-1].response,
    ):
        _, patch, weather = response.output
        assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "patch", 'a "b"\n')
        assert (weather.name, weather.namespace) == ("weather", "sky")


def test_what_cannot_be_called_is_said_in_this_endpoints_words(serve: Serve) -> None:
    running = serve(template=TEMPLATE)
    choice = {"type": "function", "name": "time"}
    for fields, param in (
        ({"tools": [WEATHER, WEATHER]}, "tools.1"),
        ({"tools": [WEATHER], "tool_choice": choice}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "required", "min_tokens": 3}, "min_tokens"),
    ):
        answer = httpx.post(f"{running.url}/v1/responses", json={"input": "Hi", **fields})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


class Sum(BaseModel):
    a: int


def test_a_format_is_held_and_parsed(serve: Serve) -> None:
    running = serve("I think {of} it.</think>", '{"a": 1}')
    with running.client() as client:
        response = client.responses.parse(model="tiny", input="Hi", text_format=Sum)
    assert response.output_parsed == Sum(a=1)
    grammars = [sampling.grammar for _, sampling in running.engine.requests]
    assert [grammar is not None for grammar in grammars] == [False, True]
    assert response.to_dict()["text"]["format"]["type"] == "json_schema"  # type: ignore[index]


# -- bodies --------------------------------------------------------------------------------

ASKED = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({}, True),
        ({"input": [ASKED, CALL, {"type": "reasoning", "summary": [], "extra": 1}]}, True),
        ({"tools": [{"type": "web_search"}], "tool_choice": "auto", "instructions": None}, True),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, True),
        ({"reasoning": {"max_tokens": 8, "summary": "auto"}, "max_output_tokens": 99}, True),
        ({"input": []}, False),
        ({"input": None}, False),
        ({"input": [{"type": "item_reference", "id": "a"}]}, False),
        ({"reasoning": {"max_tokens": -2}}, False),
        ({"previous_response_id": "resp"}, False),
        ({"background": True}, False),
        ({"truncation": "auto"}, False),
        ({"tool_choice": {"type": "web_search"}}, False),
        ({"n": 2}, False),
        ({"max_tokens": 9}, False),
        ({"no_such_field": 1}, False),
    ],
)
def test_schema_and_server_agree_on_a_response(
    serve: Serve, fields: dict[str, object], valid: bool
) -> None:
    running = serve()
    schema = httpx.get(f"{running.url}/openapi.json").json()
    body = {"input": "Hi", **fields}
    request = {"$ref": "#/components/schemas/ResponsesRequest", **schema}
    assert jsonschema.Draft202012Validator(request).is_valid(body) == valid
    answer = httpx.post(f"{running.url}/v1/responses", json=body)
    assert (answer.status_code == 200) == valid, answer.text


def spoken(role: str, text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": role, "content": content}


OF_CLIENTS: dict[str, dict[str, Any]] = {
    "openai-agents": {
        "input": [{"role": "user", "content": "Hi"}], "instructions": "Be brief.", "include": [],
        "tools": [], "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"},
        "thinking_token_budget": 64, "store": False,
    },
    "codex": {
        "input": [spoken("developer", "a"), spoken("developer", "b"), spoken("user", "Hi")],
        "store": False, "stream": True, "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": [{"type": "web_search", "external_web_access": False}],
        "reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k", "client_metadata": {"session": "s"},
    },
    "vllm bench serve": {
        "model": "tiny", "input": "Hi", "max_output_tokens": 64, "stream": True,
        "temperature": 0.0, "ignore_eos": True,
    },
    "ai sdk": {
        "model": "tiny", "input": [spoken("user", "Hi")],
        "temperature": 0.5, "top_p": 0.9, "stream": True, "user": "u",
        "metadata": {"a": "b"}, "service_tier": "flex", "parallel_tool_calls": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("client", OF_CLIENTS)
def test_what_clients_send_is_taken(serve: Serve, client: str) -> None:
    answer = httpx.post(f"{serve().url}/v1/responses", json=OF_CLIENTS[client])
    assert answer.status_code == 200, answer.text
