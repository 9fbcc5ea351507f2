"""`/v1/responses`: items into turns, tools into functions, events into items."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import ValidationError

from ponder.engine.protocol import CallPart, TokenLogprob
from ponder.protocol.chat import Turns
from ponder.protocol.dialects.responses import Responses
from ponder.protocol.dialects.responses_output import ResponsesAsk
from ponder.protocol.errors import ApiError, to_api_error
from ponder.protocol.seal import Seal, unseal
from ponder.thought.answer import AnswerDelta
from ponder.thought.outcome import Outcome, ThoughtDelta
from ponder.thought.thought import Event

from .test_dialects import REPORT, Told

_UNION, *_ = get_args(ResponseStreamEvent)
OPENAI = {
    kind: event
    for event in get_args(_UNION)
    for kind in get_args(event.model_fields["type"].annotation)
}
"""OpenAI's own types of events, by their names."""


def read(given: object = "Hi", headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = json.dumps({"input": given, **fields}).encode()
    return Responses().read(body, headers or {})


def turns(given: object, **fields: Any) -> list[Any]:
    (prompt,) = read(given, **fields).prompts
    assert isinstance(prompt, Turns)
    return list(prompt.turns)


def refused(given: object = "Hi", **fields: Any) -> tuple[str | None, str]:
    with pytest.raises((ApiError, ValidationError)) as caught:
        read(given, **fields)
    error = to_api_error(caught.value)
    assert error is not None and error.status == 400
    said = error.spelled(Responses.fields)
    return said.param, str(said)


# -- items into turns ----------------------------------------------------------------------


def said(role: str, content: object) -> dict[str, Any]:
    return {"role": role, "content": content}


def thought(text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}


CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "3"}
CALLED = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def test_a_text_is_what_a_user_said() -> None:
    assert turns("Hi") == [said("user", "Hi")]


def test_what_systems_say_first_is_one_turn() -> None:
    items = [said("developer", "two"), said("system", "three"), said("user", "Hi")]
    assert turns(items, instructions="one") == [
        said("system", "one\n\ntwo\n\nthree"),
        said("user", "Hi"),
    ]


def test_what_a_system_says_later_stands_before_the_next_users_text() -> None:
    items = [said("user", "1"), said("assistant", "2"), said("developer", "now"), said("user", "3")]
    assert turns(items) == [
        said("user", "1"),
        said("assistant", "2"),
        said("user", "now\n\n3"),
    ]


def test_what_a_system_says_last_or_between_calls_is_a_users_turn_behind_them() -> None:
    items = [said("user", "1"), CALL, said("developer", "now"), RESULT]
    *_, called, result, late = turns(items)
    assert called["tool_calls"] == [CALLED]
    assert result["role"] == "tool"
    assert late == said("user", "now")
    again = turns([*items, said("assistant", "3"), said("user", "4")])
    assert [turn["role"] for turn in again] == [
        *("user", "assistant", "tool", "user", "assistant", "user")
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_consecutive_items_of_the_assistant_are_one_turn(order: Sequence[int]) -> None:
    own = [thought("I add."), said("assistant", "Adding."), CALL]
    assert turns([said("user", "1 + 2?"), *(own[at] for at in order), RESULT]) == [
        said("user", "1 + 2?"),
        {
            "role": "assistant",
            "content": "Adding.",
            "reasoning_content": "I add.",
            "tool_calls": [CALLED],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "3", "name": "add"},
    ]


def test_an_assistants_texts_are_put_together_as_they_were_parted() -> None:
    own = [thought("One."), said("assistant", "a"), thought("Two."), said("assistant", "b")]
    _, turn = turns([said("user", "?"), *own])
    assert (turn["content"], turn["reasoning_content"]) == ("ab", "One.\n\nTwo.")


def test_parallel_calls_have_their_results_behind_them() -> None:
    other = {**CALL, "call_id": "c2", "name": "sub"}
    items = [said("user", "?"), CALL, other, {**RESULT, "call_id": "c2"}, RESULT]
    _, called, *results = turns(items)
    assert [one["id"] for one in called["tool_calls"]] == ["c1", "c2"]
    assert [(one["tool_call_id"], one["name"]) for one in results] == [("c2", "sub"), ("c1", "add")]


def test_names_within_a_namespace_and_custom_calls_are_functions() -> None:
    spaced = {**CALL, "namespace": "math"}
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": 'a"b'}
    output = {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"}
    _, called, result = turns([said("user", "?"), spaced, custom, output])
    assert [one["function"] for one in called["tool_calls"]] == [
        {"name": "math__add", "arguments": {"a": 1}},
        {"name": "patch", "arguments": {"input": 'a"b'}},
    ]
    assert (result["name"], result["content"]) == ("patch", "done")


def seal(text: str) -> str:
    sealed = Seal()
    sealed.add(text)
    return sealed.text()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": [{"type": "reasoning_text", "text": "I add."}]}, "I add."),
        ({"content": None, "encrypted_content": seal("I add.")}, "I add."),
        (
            {
                "content": [{"type": "reasoning_text", "text": "I add."}],
                "encrypted_content": seal("no"),
            },
            "I add.",
        ),
        ({"summary": [{"type": "summary_text", "text": "Added."}]}, "Added."),
        ({"encrypted_content": "gAAAAfromanotherserver"}, None),
        ({}, None),
    ],
)
def test_a_thought_comes_back_by_its_text_or_sealed(
    fields: dict[str, Any], expected: str | None
) -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], **fields}
    _, turn = turns([said("user", "?"), item, said("assistant", "3")])[:2]
    assert turn.get("reasoning_content") == expected
    assert turn["content"] == "3"


@given(st.lists(st.text()))
def test_what_is_sealed_can_be_read(parts: list[str]) -> None:
    sealed = Seal()
    for part in parts:
        sealed.add(part)
    assert unseal(sealed.text()) == "".join(parts)


@pytest.mark.parametrize("sealed", ["", "ponder:", "ponder:!", "ponder:/w==", "other", "ponder:ä"])
def test_what_cannot_be_unsealed_is_no_thought(sealed: str) -> None:
    assert unseal(sealed) == ""


def test_what_servers_write_into_items_is_taken_back() -> None:
    part = {"type": "output_text", "text": "3", "annotations": [], "logprobs": []}
    message = {
        "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [part, {"type": "refusal", "refusal": "!"}], "phase": "final_answer",
    }  # fmt: skip
    output = {**RESULT, "output": [{"type": "input_text", "text": "3"}], "id": None}
    call = {**CALL, "id": "fc_1", "status": "completed", "arguments": '{"a": '}
    read_back = turns([said("user", "?"), message, call, output])
    assert read_back[1]["content"] == "3!"
    assert read_back[1]["tool_calls"][0]["function"]["arguments"] == {}
    assert read_back[2]["content"] == "3"


ITEM = "this server keeps no items and runs no tools itself; send items of type message"
TEXT_ONLY = "this server reads text only, no images, audio or files"
KEEPS_NOTHING = "this server keeps nothing between requests; leave it out and send the whole"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", KEEPS_NOTHING),
        ({"conversation": "conv_1"}, "conversation", KEEPS_NOTHING),
        ({"conversation": {"id": "conv_1"}}, "conversation", KEEPS_NOTHING),
        ({"background": True}, "background", "leave it out, or send stream: true"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "this server keeps no prompts; leave it out"),
        ({"truncation": "auto"}, "truncation", "shorten the conversation"),
        ({"max_tokens": 9}, "max_tokens", "is called max_output_tokens here; send that"),
        ({"n": 2}, "n", "a response is one answer; send a request for each"),
        ({"top_logprobs": 3}, None, 'top_logprobs needs include: ["message.output_text.logprobs"]'),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context", "chat template decides"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode", "must be 'standard', not 'pro'"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format", "needs schema: add it"),
        ({"min_tokens": 9, "max_output_tokens": 8}, None, "above max_output_tokens 8: lower it"),
        ({"context_management": [{"type": "compaction"}]}, "context_management", "drops nothing"),
        ({"previous_input_messages": [{}]}, "previous_input_messages", KEEPS_NOTHING),
        ({"enable_response_messages": True}, "enable_response_messages", "/tokenize gives tokens"),
        ({"image": {}}, "image", "this server reads text only; leave it out"),
        ({"no_such": 1}, "no_such", "no_such is not supported here: leave it out"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools: send some"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type", "runs no tools itself"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "needs name: add it"),
        ({"tools": [{"type": "function"}]}, "tools.0", "one of type function needs name: add it"),
    ],
)  # fmt: skip
def test_what_is_not_there_says_so_with_its_remedy(
    fields: dict[str, Any], param: str | None, says: str
) -> None:
    at, message = refused(**fields)
    assert (at, says in message) == (param, True), (at, message)


@pytest.mark.parametrize(
    ("item", "param", "says"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "input.0.type", ITEM),
        ({"type": "web_search_call", "id": "ws_1"}, "input.0.type", ITEM),
        ({"role": "tool", "content": "3"}, "input.0.role", "system, developer, user and assistant"),
        (
            {"type": "function_call_output", "output": "a"},
            "input.0",
            "one of type function_call_output needs call_id: add it",
        ),
        ({"role": "user"}, "input.0", "one of type message needs content: add it"),
        ({"content": "Hi"}, "input.0", "one of type message needs role: add it"),
        (said("user", 5), "input.0.content", "must be a string or a list of text parts"),
        (said("user", [{"type": "input_image"}]), "input.0.content.0.type", TEXT_ONLY),
        (said("user", [{"type": "input_file"}]), "input.0.content.0.type", TEXT_ONLY),
        (said("user", [{"type": "input_text"}]), "input.0.content.0", "needs text: add it"),
        ({**RESULT, "output": [{"type": "input_image"}]}, "input.0.output.0.type", TEXT_ONLY),
        ({**CALL, "arguments": None}, "input.0", "one of type function_call needs arguments"),
        ({**RESULT, "call_id": None}, "input.0", "function_call_output needs call_id"),
    ],
)
def test_what_is_wrong_with_an_item_is_said_of_the_item(
    item: object, param: str, says: str
) -> None:
    at, message = refused([item])
    assert (at, says in message) == (param, True), (at, message)


def test_what_changes_nothing_is_taken() -> None:
    request = read(
        store=True, metadata={"a": "b"}, client_metadata={"x": 1}, service_tier="flex",
        safety_identifier="s", stream=True, stream_options={"include_obfuscation": False},
        max_tool_calls=3, prompt_cache_retention="24h", truncation="disabled", background=False,
        text={"verbosity": "low"}, include=["web_search_call.results"], conversation=None,
        reasoning={"summary": "auto", "effort": "low"}, tools=[], tool_choice="auto", n=1,
        parallel_tool_calls=True,
    )  # fmt: skip
    assert request.ask.effort == "low"
    assert request.tools is None
    assert request.logprobs is None
    assert request.repeated["store"] is False
    assert request.repeated["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert request.repeated["reasoning"] == {"effort": "low", "summary": None}


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking_token_budget": 8},
        {"reasoning": {"max_tokens": 8}},
        {"thinking": {"type": "enabled", "budget_tokens": 8}},
        {"budget": 8, "reasoning": {"max_tokens": 8, "summary": "auto"}},
    ],
)
def test_a_budget_is_read_by_every_name(fields: dict[str, Any]) -> None:
    assert read(**fields, max_output_tokens=99).ask.budget == 8
    assert read(max_output_tokens=99).ask.max_completion_tokens == 99
    assert read(chat_template_kwargs={"enable_thinking": False}).ask.budget == 0


def test_a_format_is_a_grammar_of_the_answer() -> None:
    assert read().grammar is None
    assert read(text={"format": {"type": "text"}}).grammar is None
    named = {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "integer"}}
    request = read(text={"format": named})
    assert '{"type": "integer"}' in request.grammar.rule
    assert request.repeated["text"]["format"] == named
    assert '{"type": "object"}' in read(text={"format": {"type": "json_object"}}).grammar.rule


def test_log_probabilities_are_included_by_name() -> None:
    include = ["message.output_text.logprobs"]
    assert read(include=include).logprobs == 0
    assert read(include=include, top_logprobs=3).logprobs == 3


@pytest.mark.parametrize(
    ("fields", "headers", "name"),
    [
        ({}, {}, None),
        ({}, {"session-id": "s"}, "session-id:s"),
        ({"prompt_cache_key": "k"}, {"session-id": "s"}, "prompt_cache_key:k"),
        ({"prompt_cache_key": "k", "user": "u"}, {}, "user:u"),
        ({"user": "u", "ponder": {"scope": "p"}}, {}, "scope:p"),
        ({"ponder": {"scope": "p"}}, {"x-ponder-conversation": "h"}, "header:h"),
    ],
)
def test_a_conversation_is_named_by_what_clients_send(
    fields: dict[str, Any], headers: dict[str, str], name: str | None
) -> None:
    assert read("Hi", headers, **fields).conversation == name


# -- tools into functions ------------------------------------------------------------------

ADD = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "x: y"}
PATCH = {"type": "custom", "name": "patch", "format": GRAMMAR}
MATH = {"type": "namespace", "name": "math", "description": "d", "tools": [{**ADD, "name": "sub"}]}


def test_tools_are_functions_whatever_they_are_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        request = read(tools=[ADD, PATCH, MATH, {"type": "web_search"}, {"type": "sEcReT"}])
    assert [tool.name for tool in request.tools.tools] == ["add", "patch", "math__sub"]
    assert request.tools.choice == "auto"
    add, patch, _ = request.tools.tools
    assert (add.strict, patch.strict) == (True, False)
    assert patch.parameters["properties"]["input"]["description"].endswith("x: y")
    assert caplog.messages == ["dropped tools that this server cannot run: unknown, web_search"]
    assert request.repeated["tools"] == [ADD, PATCH, MATH]
    assert request.repeated["tool_choice"] == "auto"


@pytest.mark.parametrize(
    ("choice", "kind", "names"),
    [
        ("auto", "auto", ["add", "patch", "math__sub"]),
        ("none", "none", ["add", "patch", "math__sub"]),
        ("required", "required", ["add", "patch", "math__sub"]),
        ({"type": "function", "name": "add"}, "named", ["add"]),
        ({"type": "function", "name": "sub", "namespace": "math"}, "named", ["math__sub"]),
        ({"type": "custom", "name": "patch"}, "named", ["patch"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "add"}, {"type": "web_search"}],
            },
            "required",
            ["add"],
        ),
    ],
)
def test_a_choice_is_of_functions(choice: object, kind: str, names: list[str]) -> None:
    request = read(tools=[ADD, PATCH, MATH], tool_choice=choice, parallel_tool_calls=False)
    use = request.tools
    assert (use.choice, [tool.name for tool in use.tools]) == (kind, names)
    assert use.parallel is False
    assert request.repeated["tool_choice"] == choice


def test_a_choice_names_tools_that_are_there() -> None:
    at, says = refused(tools=[ADD], tool_choice={"type": "function", "name": "sub"})
    assert (at, "names 'sub', which is none of tools" in says) == ("tool_choice", True)
    hosted = {"type": "allowed_tools", "tools": [{"type": "web_search"}]}
    at, says = refused(tools=[ADD, {"type": "web_search"}], tool_choice=hosted)
    assert (at, "allows no function" in says) == ("tool_choice", True)


# -- events into items ---------------------------------------------------------------------


def ask(**fields: Any) -> ResponsesAsk:
    request = read(tools=[ADD, PATCH, MATH], **fields)
    assert isinstance(request, ResponsesAsk)
    return request


def whole(request: ResponsesAsk, events: Sequence[Event], outcome: Outcome) -> dict[str, Any]:
    reply = Told(request)
    writer = Responses().whole(reply)
    for event in events:
        writer.event(0, event)
    reply.outcomes = [outcome]
    response: dict[str, Any] = json.loads(b"".join(writer.parts()))
    return response


def streamed(
    request: ResponsesAsk, events: Sequence[Event], end: Outcome | ApiError
) -> list[dict[str, Any]]:
    reply = Told(request)
    writer = Responses().stream(reply)
    written = b"".join(writer.event(0, event) for event in events)
    if isinstance(end, ApiError):
        written += writer.broken(end)
    else:
        reply.outcomes = [end]
        written += writer.closing()
    assert written.endswith(b"\n\n")
    told = []
    for number, block in enumerate(written.decode().split("\n\n")[:-1]):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        told.append(event)
    return told


def followed(events: Sequence[dict[str, Any]]) -> ResponseStreamState[Any]:
    """What OpenAI's own client makes of them; its types take every event."""
    state: ResponseStreamState[Any] = ResponseStreamState(text_format=omit, input_tools=omit)
    for event in events:
        state.handle_event(OPENAI[event["type"]].model_validate(event))
    return state


THOUGHT, ANSWER = ThoughtDelta('I "add".\n'), AnswerDelta("It is ß.")
FIRST = CallPart(0, "call_0", "add", "")
EVENTS = [THOUGHT, ANSWER, FIRST, CallPart(0, arguments='{"a":'), CallPart(0, arguments=" 1}")]


def test_events_come_in_openais_order() -> None:
    told = streamed(ask(), EVENTS, Outcome(calls=1))
    assert [event["type"].removeprefix("response.") for event in told] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    added = [event for event in told if event["type"] == "response.output_item.added"]
    assert [event["item"].get("content") for event in added] == [[], [], None]
    assert added[2]["item"]["arguments"] == ""
    assert {event["item"]["status"] for event in added} == {"in_progress"}
    assert told[0]["response"]["output"] == []
    assert told[0]["response"]["usage"] is None
    followed(told)


def test_a_response_has_its_items_and_what_they_cost() -> None:
    response = whole(ask(metadata={"a": "b"}), EVENTS, Outcome(calls=1))
    parsed = Response.model_validate(response)
    assert parsed.output_text == "It is ß."
    kinds = [(item.type, item.status) for item in parsed.output]  # type: ignore[union-attr]
    assert kinds == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("function_call", "completed"),
    ]
    thought, message, call = response["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": 'I "add".\n'}]
    assert thought["summary"] == []
    assert message["content"][0]["annotations"] == []
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_0", "add", '{"a": 1}')
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    assert response["ponder"] == REPORT.model_dump()
    assert (response["status"], response["metadata"]) == ("completed", {"a": "b"})


@pytest.mark.parametrize(
    ("events", "calls", "statuses"),
    [
        ([THOUGHT], 0, ["incomplete"]),
        ([THOUGHT, ANSWER], 0, ["completed", "incomplete"]),
        ([ANSWER, *EVENTS[2:4]], 0, ["completed", "incomplete"]),
        ([*EVENTS[2:], CallPart(1, "call_1", "add", '{"a"')], 1, ["completed", "incomplete"]),
        (EVENTS[2:], 1, ["completed"]),
    ],
)
def test_what_a_limit_cut_is_incomplete(
    events: Sequence[Event], calls: int, statuses: list[str]
) -> None:
    end = Outcome(finish_reason="length", calls=calls)
    response = whole(ask(), events, end)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == statuses
    last = streamed(ask(), events, end)[-1]
    assert last["type"] == "response.incomplete"
    assert [item["status"] for item in last["response"]["output"]] == statuses


@pytest.mark.parametrize("events", [[], [THOUGHT, AnswerDelta("It")]])
def test_a_stream_that_breaks_ends_as_failed(events: Sequence[Event]) -> None:
    told = streamed(ask(), events, ApiError(502, "engine_error", "it failed"))
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    last = told[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "engine_error", "message": "it failed"}
    assert last["response"]["usage"] is None
    assert [item["status"] for item in last["response"]["output"]] == (
        ["completed", "incomplete"] if events else []
    )
    followed(told[:-1])


def test_a_thought_that_is_not_shown_is_no_item() -> None:
    request = ask(include_reasoning=False)
    response = whole(request, [THOUGHT, ANSWER, THOUGHT, ANSWER], Outcome())
    (message,) = response["output"]
    assert message["content"][0]["text"] == "It is ß.It is ß."
    told = streamed(request, [THOUGHT], Outcome())
    assert [event["type"] for event in told] == [
        *("response.created", "response.in_progress", "response.completed")
    ]


def test_thoughts_are_sealed_where_they_are_asked_for() -> None:
    assert "encrypted_content" not in whole(ask(), EVENTS, Outcome())["output"][0]
    request = ask(include=["reasoning.encrypted_content"])
    item = whole(request, EVENTS, Outcome())["output"][0]
    assert unseal(item["encrypted_content"]) == item["content"][0]["text"]
    told = streamed(request, EVENTS, Outcome())
    done = next(event for event in told if event["type"] == "response.output_item.done")
    assert done["item"]["encrypted_content"] == item["encrypted_content"]


def test_clients_know_calls_by_their_own_names() -> None:
    events = [
        CallPart(0, "c0", "math__sub", "{}"),
        CallPart(1, "c1", "patch", '{"input": "a'),
        CallPart(1, arguments='\\"b"}'),
        CallPart(2, "c2", "nobody", "{}"),
    ]
    sub, patch, nobody = whole(ask(), events, Outcome(calls=3))["output"]
    assert (sub["type"], sub["name"], sub["namespace"]) == ("function_call", "sub", "math")
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", 'a"b')
    assert (nobody["name"], "namespace" in nobody) == ("nobody", False)
    told = streamed(ask(), events, Outcome(calls=3))
    followed(told)
    custom = [event for event in told if "custom_tool_call_input" in event["type"]]
    assert [event.get("delta", event.get("input")) for event in custom] == ['a"b', 'a"b']


@given(text=st.text(min_size=1), data=st.data())
def test_the_text_of_a_custom_call_is_read_from_cut_arguments(text: str, data: Any) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=data.draw(st.booleans()))
    begun = len('{"input": "')
    size = data.draw(st.integers(begun, len(arguments)))
    part = CallPart(0, "c", "patch", arguments[:size])
    (item,) = whole(ask(), [part], Outcome(finish_reason="length"))["output"]
    assert text.startswith(item["input"]) or "\\ud" in arguments
    assert item["status"] == "incomplete"
    (item,) = whole(ask(), [CallPart(0, "c", "patch", arguments)], Outcome(calls=1))["output"]
    assert item["input"] == text


def test_arguments_that_are_none_are_the_text() -> None:
    (item,) = whole(ask(), [CallPart(0, "c", "patch", "*** Begin")], Outcome(calls=1))["output"]
    assert item["input"] == "*** Begin"


def test_blank_between_calls_is_no_message() -> None:
    blank = AnswerDelta("\n")
    events = [FIRST, blank, CallPart(1, "call_1", "add", "{}"), blank, AnswerDelta("It"), blank]
    items = whole(ask(), events, Outcome(calls=2))["output"]
    assert [item["type"] for item in items] == ["function_call", "function_call", "message"]
    assert items[2]["content"][0]["text"] == "\nIt\n"
    assert len(whole(ask(), [FIRST, blank], Outcome(calls=1))["output"]) == 1


LOGPROBS = st.lists(st.just(TokenLogprob(97, -0.5, ((98, -1.0),))), max_size=2).map(tuple)
ANSWERS = st.builds(AnswerDelta, st.text(alphabet=' \n"\\ßa🙂', max_size=4), LOGPROBS)
THOUGHTS = st.builds(ThoughtDelta, st.text(alphabet=' \n"ßa🙂', max_size=4))
CALLS = st.tuples(
    st.sampled_from(["add", "patch", "math__sub", "nobody"]),
    st.lists(st.sampled_from(["", '{"input"', ': "', "ß\\n", '"}']), max_size=5),
)


@given(
    parts=st.lists(ANSWERS | THOUGHTS | CALLS, max_size=8),
    finish=st.sampled_from(["stop", "length"]),
    cut=st.booleans(),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "include_reasoning": st.just(False),
            "include": st.sampled_from(
                [["reasoning.encrypted_content"], ["message.output_text.logprobs"]]
            ),
        },
    ),
)
def test_the_last_event_is_the_whole_response(
    parts: list[Any], finish: Any, cut: bool, fields: dict[str, Any]
) -> None:
    events: list[Event] = []
    calls = 0
    for part in parts:
        if isinstance(part, tuple):
            name, arguments = part
            events.append(CallPart(calls, f"call_{calls}", name, ""))
            events += [CallPart(calls, arguments=text) for text in arguments]
            calls += 1
        else:
            events.append(part)
    cut = cut and bool(parts) and isinstance(parts[-1], tuple)
    outcome = Outcome(finish_reason=finish, calls=calls - cut)
    request = ask(**fields)
    response = whole(request, events, outcome)
    told = streamed(request, events, outcome)
    last = told[-1]
    assert last["response"] == response
    assert last["type"] == f"response.{response['status']}"
    state = followed(told)
    if finish == "stop":
        completed = state._completed_response
        assert completed is not None
        assert completed.output_text == "".join(
            item["content"][0]["text"] for item in response["output"] if item["type"] == "message"
        )
    for number, item in enumerate(response["output"]):
        own = [event for event in told if event.get("output_index") == number]
        assert own[0]["type"] == "response.output_item.added"
        assert own[-1] == {**own[-1], "type": "response.output_item.done", "item": item}
        assert {event["item_id"] for event in own if "item_id" in event} == {item["id"]}
        assert own[0]["item"]["id"] == item["id"]
        deltas = "".join(event["delta"] for event in own if "delta" in event)
        text = item["content"][0]["text"] if "content" in item else None
        text = item.get("arguments", item.get("input")) if text is None else text
        assert deltas == text
        assert text is not None and (item["type"] != "message" or text.strip())
        if item["type"] == "message":
            entries = [entry for e in own if e["type"].endswith("delta") for entry in e["logprobs"]]
            assert entries == item["content"][0]["logprobs"]
    assert len({item["id"] for item in response["output"]}) == len(response["output"])
