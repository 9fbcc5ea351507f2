"""`/v1/messages` without a server: requests as they are read, replies as they are written."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import from_json

from ponder.engine.protocol import CallPart, Tool
from ponder.protocol.chat import ChatRequest, ToolUse, Turns
from ponder.protocol.dialects import DIALECTS, dialect_at
from ponder.protocol.dialects.messages import AnthropicMessages, CountTokens
from ponder.protocol.dialects.messages_reply import MessagesAsk
from ponder.protocol.dialects.messages_shapes import AnthropicMessage, MessageEvent
from ponder.protocol.errors import ApiError, to_api_error
from ponder.protocol.grammars import json_schema
from ponder.protocol.sampling import SamplingAsk
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import EFFORT_TOKENS, Ask
from ponder.thought.outcome import Outcome, ThoughtDelta
from ponder.thought.thought import Event

from .test_dialects import REPORT, Told

DIALECT = AnthropicMessages()
USER = {"role": "user", "content": "hi"}
ADD = {"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}


def read(headers: dict[str, str] | None = None, **fields: Any) -> MessagesAsk:
    body = {"max_tokens": 400, "messages": [USER], **fields}
    request = DIALECT.read(json.dumps(body).encode(), headers or {})
    assert isinstance(request, MessagesAsk)
    return request


def turns(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    (asked,) = read(messages=list(messages), **fields).prompts
    assert isinstance(asked, Turns)
    return [dict(turn) for turn in asked.turns]


def says(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def model(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


# -- requests --------------------------------------------------------------------------------


def test_it_has_a_row_and_speaks_below_its_path() -> None:
    assert dialect_at("/v1/messages/count_tokens") is DIALECTS["/v1/messages"]
    assert dialect_at("/v1/messages2") is DIALECTS["/v1/chat/completions"]


def test_a_conversation_is_read_into_turns() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    assert turns(
        user(says("One.", **cached), says("Two.")),
        model(says("Thr", citations=None), says("ee.")),
        USER,
        system=[says("Be brief."), says("", **cached), says("Be kind.")],
    ) == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "One.\n\nTwo."},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "hi"},
    ]
    assert turns(USER, system="Be brief.")[0] == {"role": "system", "content": "Be brief."}


def test_what_differs_in_every_request_is_no_part_of_the_prompt() -> None:
    billing = says("x-anthropic-billing-header: cc_version=2.1.197.0; cch=00000;")
    assert turns(USER, system=[billing, says("Be brief.")])[0]["content"] == "Be brief."
    assert turns(USER, system=[billing]) == [USER]
    said = "x-anthropic-billing-header: is what this is about.\nExplain it."
    assert turns(USER, system=said)[0]["content"] == said


def test_late_system_messages_are_text_of_the_users_turn() -> None:
    def system(text: str) -> dict[str, Any]:
        return {"role": "system", "content": text}

    answered = {"role": "assistant", "content": "Yes."}
    assert turns(
        system("Early."), USER, system("Late."), answered, system("Later."), USER, system("Last."),
        system="First.",
    ) == [
        {"role": "system", "content": "First.\n\nEarly."},
        {"role": "user", "content": "hi\n\nLate."},
        answered,
        {"role": "user", "content": "Later.\n\nhi\n\nLast."},
    ]  # fmt: skip


def test_messages_of_one_side_are_one_turn() -> None:
    again = {"role": "assistant", "content": " And so on."}
    said = turns(USER, USER, {"role": "assistant", "content": "So."}, again, USER)
    assert [turn["content"] for turn in said] == ["hi\n\nhi", "So. And so on.", "hi"]


def test_calls_and_what_they_gave_back_are_turns() -> None:
    calls = [
        {"type": "tool_use", "id": f"toolu_{n}", "name": "add", "input": {"n": n}, "caller": None}
        for n in (1, 2, 3)
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": [says("a"), says("b")]},
        {"type": "tool_result", "tool_use_id": "toolu_3", "content": None},
    ]
    said = turns(
        USER,
        model(says("Let me see."), *calls),
        user(says("Well?"), *results[:2]),
        user(results[2]),
    )
    assert said[1]["tool_calls"][1] == {
        "id": "toolu_2",
        "type": "function",
        "function": {"name": "add", "arguments": {"n": 2}},
    }
    assert said[1]["content"] == "Let me see."
    assert said[2:] == [
        {"role": "tool", "tool_call_id": "toolu_1", "name": "add", "content": "3"},
        {"role": "tool", "tool_call_id": "toolu_2", "name": "add", "content": "a\n\nb"},
        {"role": "tool", "tool_call_id": "toolu_3", "name": "add", "content": ""},
        {"role": "user", "content": "Well?"},
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [("no such file", "Error: no such file"), ("ERROR 5", "ERROR 5"), ("", "Error:")],
)
def test_a_call_that_failed_is_told_as_one(content: str, text: str) -> None:
    failed = {"type": "tool_result", "tool_use_id": "x", "content": content, "is_error": True}
    assert turns(user(failed)) == [{"role": "tool", "tool_call_id": "x", "content": text}]


@pytest.mark.parametrize(
    ("block", "thought"),
    [
        ({"thinking": "Hm.", "signature": "EqQBCkYIARgCIkD="}, "Hm."),
        ({"thinking": "Hm.", "signature": "ponder:"}, "Hm."),
        ({"thinking": "", "signature": f"ponder:{base64.b64encode(b'Hm.').decode()}"}, "Hm."),
        ({"thinking": "", "signature": "EqQBCkYIARgCIkD="}, None),
        ({"thinking": "", "signature": "ponder:no base64"}, None),
        ({"thinking": "", "signature": "ponder:/w=="}, None),  # no UTF-8
    ],
)
def test_a_thought_that_is_sent_back_is_the_turns(block: dict[str, str], thought: str) -> None:
    said = model({"type": "thinking", **block}, says("So."))
    assert turns(USER, said, USER)[1].get("reasoning_content") == thought


def test_what_another_server_redacted_is_skipped() -> None:
    redacted = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}
    assert turns(USER, model(redacted, says("So.")), USER)[1] == {
        "role": "assistant",
        "content": "So.",
    }


ENABLED = {"thinking": {"type": "enabled", "budget_tokens": 64}}
ADAPTIVE = {"thinking": {"type": "adaptive"}}


@pytest.mark.parametrize(
    ("fields", "budget", "shown"),
    [
        ({}, 0, False),
        ({"output_config": {"effort": "high"}}, 0, False),
        ({"thinking": {"type": "disabled"}}, 0, False),
        ({"thinking": {"type": "between_tools"}}, 0, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, 0, False),
        (ENABLED, 64, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 399}}, 399, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 4000}}, 4000, True),
        ({**ENABLED, "output_config": {"effort": "low"}}, 64, True),
        (ADAPTIVE, None, True),
        ({**ADAPTIVE, "output_config": {"effort": "high"}}, EFFORT_TOKENS["high"], True),
        ({**ADAPTIVE, "budget": 7, "output_config": {"effort": "high"}}, 7, True),
        ({"thinking_token_budget": 64}, 64, True),
        ({"thinking_token_budget": 64, **ENABLED}, 64, True),
        ({"thinking_token_budget": -1}, -1, True),
        ({"enable_thinking": True}, None, True),
        ({"reasoning_effort": "low"}, EFFORT_TOKENS["low"], True),
        ({**ENABLED, "include_reasoning": False}, 64, False),
    ],
)
def test_a_budget_is_read_and_no_thought_is_shown_unasked(
    fields: dict[str, Any], budget: int | None, shown: bool
) -> None:
    request = read(**fields)
    assert (request.ask.budget, request.shows_thought) == (budget, shown)
    assert request.ask.max_completion_tokens == 400


def test_a_wish_that_clients_send_to_every_model_is_not_insisted_on() -> None:
    effort = {"output_config": {"effort": "max"}}
    asked = read(**ADAPTIVE, **effort).ask
    assert (asked.insists, asked.source, asked.effort) == (False, "effort", "max")
    for soft in ({}, ADAPTIVE):
        assert not read(**soft).ask.insists
    for firm in (
        ENABLED,
        {"budget": 5},
        {"thinking": {"type": "disabled"}},
        {**ADAPTIVE, "budget": 5},
    ):
        assert read(**firm).ask.insists


def test_a_thought_may_be_left_to_its_signature() -> None:
    assert read(thinking={"type": "adaptive", "display": "omitted"}).omits_thought
    assert not read(thinking={"type": "adaptive", "display": "summarized"}).omits_thought


@pytest.mark.parametrize(
    ("choice", "use"),
    [
        (None, ("auto", True)),
        ({"type": "auto"}, ("auto", True)),
        ({"type": "any", "disable_parallel_tool_use": True}, ("required", False)),
        ({"type": "tool", "name": "add"}, ("named", True)),
        ({"type": "none"}, ("none", True)),
    ],
)
def test_tools_are_functions(choice: dict[str, Any] | None, use: tuple[Any, bool]) -> None:
    other = {"name": "sub", "input_schema": {}, "type": "custom", "strict": True}
    noise = {"cache_control": {"type": "ephemeral"}, "eager_input_streaming": True}
    request = read(tools=[{**ADD, **noise}, other], tool_choice=choice)
    first = Tool(name="add", description="Adds.", parameters={"type": "object"})
    second = Tool(name="sub", strict=True)
    tools = [first] if use[0] == "named" else [first, second]
    assert request.tools == ToolUse(tools=tools, choice=use[0], parallel=use[1])
    assert read(tools=[]).tools is None


def test_a_format_is_a_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    request = read(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert request.grammar == json_schema(schema)
    assert read(output_config={"format": None}).grammar is None


def test_sampling_is_read() -> None:
    request = read(temperature=0.5, top_p=0.9, top_k=4, seed=7, stop_sequences=["END"], stream=True)
    assert request.sampling == SamplingAsk(temperature=0.5, top_p=0.9, top_k=4, seed=7)
    assert (request.rules.stop, request.stream, request.choices) == (("END",), True, 1)


SESSION = json.dumps({"device_id": "d", "account_uuid": "", "session_id": "s-1"})


@pytest.mark.parametrize(
    ("headers", "fields", "name"),
    [
        ({}, {}, None),
        ({}, {"metadata": {"user_id": "u"}}, "user:u"),
        ({}, {"metadata": {"user_id": "7"}}, "user:7"),
        ({}, {"metadata": {"user_id": "[" * 2000}}, f"user:{'[' * 2000}"),
        ({}, {"metadata": {"user_id": SESSION, "more": 1}}, "user:s-1"),
        ({}, {"metadata": {"user_id": '{"session_id": 5}'}}, 'user:{"session_id": 5}'),
        ({"x-claude-code-session-id": "s-2"}, {"metadata": {"user_id": SESSION}}, "user:s-2"),
        ({"x-claude-code-session-id": "s-2"}, {"ponder": {"scope": "p"}}, "scope:p"),
        ({"x-ponder-conversation": "h", "x-claude-code-session-id": "s-2"}, {}, "header:h"),
    ],
)
def test_the_session_is_the_conversation(
    headers: dict[str, str], fields: dict[str, Any], name: str | None
) -> None:
    assert read(headers, **fields).conversation == name


def test_what_changes_nothing_is_accepted() -> None:
    fields = {
        "betas": ["claude-code-20250219"], "cache_control": {"type": "ephemeral"},
        "container": None, "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "diagnostics": {"previous_message_id": None}, "inference_geo": "eu", "mcp_servers": [],
        "metadata": {"user_id": None}, "service_tier": "standard_only", "speed": "fast",
    }  # fmt: skip
    request = read(**fields)
    assert request.ask == Ask(budget=0, insists=False, max_completion_tokens=400)


OF_OTHERS = {
    "server_tool_use": "leave the call and its result out",
    "web_search_tool_result": "leave the call and its result out",
    "mcp_tool_use": "leave the call and its result out",
    "search_result": "send its text in one of type text",
    "compaction": "send its text in one of type text",
    "{0}": "send its text in one of type text",
}


@pytest.mark.parametrize("kind", OF_OTHERS)
def test_a_block_of_another_server_is_named_with_its_remedy(kind: str) -> None:
    block = {"type": kind, "id": "s1", "name": "web_search", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "x", "content": [block]}
    places: list[tuple[dict[str, Any], str]] = [
        ({"messages": [USER, model(block), USER]}, "messages.1.content.0"),
        ({"messages": [user(result)]}, "messages.0.content.0.content.0"),
        ({"system": [block]}, "system.0"),
    ]
    for fields, param in places:
        error = refused(**fields)
        assert error.param == param
        assert f"no {kind} blocks" in str(error)
        assert OF_OTHERS[kind] in str(error)
        assert "images" not in str(error)


def test_a_salt_keeps_caches_apart() -> None:
    assert read(cache_salt="a").sampling.cache_salt == "a"


def refused(**fields: Any) -> ApiError:
    with pytest.raises((ApiError, ValidationError)) as caught:
        read(**fields)
    error = to_api_error(caught.value)
    assert error is not None
    assert error.status == 400
    return error.spelled(DIALECT.fields)


IMAGE = {"type": "image", "source": {"type": "base64", "data": ""}}


@pytest.mark.parametrize(
    ("fields", "param", "remedy"),
    [
        ({"max_tokens": None}, "max_tokens", "add it"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"messages": []}, "messages", "add an entry"),
        ({"messages": [user(IMAGE)]}, "messages.0.content.0", "send blocks of type text"),
        ({"messages": [user({"type": []})]}, "messages.0.content.0", "send blocks of type text"),
        ({"messages": [user(says(5))]}, "messages.0.content.0.text", "must be a string"),
        (
            {"messages": [user({"type": "tool_result", "tool_use_id": "x", "content": [IMAGE]})]},
            "messages.0.content.0.content.0",
            "send blocks of type text",
        ),
        (
            {"messages": [user({"type": "tool_use", "id": "a", "name": "b", "input": {}})]},
            "messages.0",
            "send them in an assistant message",
        ),
        (
            {"messages": [model({"type": "tool_result", "tool_use_id": "x"}), USER]},
            "messages.0",
            "send them in a user message",
        ),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role", "send one of them"),
        ({"messages": [USER, model(says("I"))]}, None, "leave the last one out"),
        ({"system": [IMAGE]}, "system.0", "send blocks of type text"),
        ({"thinking": {"type": "enabled"}}, "thinking", "add it, or send type adaptive"),
        ({"thinking": {**ADAPTIVE["thinking"], "budget_tokens": 5}}, "thinking", "leave it out"),
        ({"thinking": {"type": "enabled", "budget_tokens": -2}}, "thinking.budget_tokens", "≥ 0"),
        ({**ENABLED, "budget": 8}, "budget", "send one of them"),
        ({"thinking": {"type": "disabled"}, "budget": 8}, "budget", "send one of them"),
        (
            {"output_config": {"effort": "high"}, "reasoning_effort": "low"},
            "output_config.effort",
            "send one of them",
        ),
        ({"output_config": {"effort": "auto"}}, "output_config.effort", "'high'"),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema",
            "add it",
        ),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools.0.type",
            "send a tool that the client runs",
        ),
        ({"tools": [{"name": "a"}]}, "tools.0.input_schema", "add it"),
        ({"tools": [ADD, ADD]}, "tools.1", "rename one"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "send some"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "b"}}, "tool_choice", "name one"),
        ({"tools": [ADD], "tool_choice": {"type": "tool"}}, "tool_choice", "needs a name"),
        ({"stop_sequences": [""]}, "stop_sequences.0", "leave it out"),
        ({"container": "c"}, "container", "leave it out"),
        ({"mcp_servers": [{}]}, "mcp_servers", "send their tools"),
        ({"n": 2}, "n", "leave it out"),
        ({"thread": {"type": "create"}}, "thread", "send the whole conversation"),
        ({"compaction": {}}, "compaction", "no summaries"),
        ({"response_format": {}}, "response_format", "is output_config.format: send that"),
        ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params", "hands no caches"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            "chat_template_kwargs",
            "send thinking of type disabled, or of type enabled with budget_tokens",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    fields: dict[str, Any], param: str | None, remedy: str
) -> None:
    error = refused(**fields)
    assert error.param == param
    assert remedy in str(error)


def test_counting_needs_no_max_tokens() -> None:
    body = {"messages": [USER], "tools": [ADD], **ENABLED}
    request = CountTokens().read(json.dumps(body).encode(), {})
    assert (request.ask.budget, request.ask.max_completion_tokens) == (64, None)
    assert CountTokens().counted(7).model_dump() == {"input_tokens": 7}


# -- replies ---------------------------------------------------------------------------------


def told(outcome: Outcome | None = None, **fields: Any) -> Told:
    reply = Told(MessagesAsk(id="msg_1", prompts=[Turns([])], **fields))
    reply.outcomes = [outcome or Outcome()]
    return reply


def whole(events: Sequence[Event], reply: Told) -> dict[str, Any]:
    writer = DIALECT.whole(reply)
    for event in events:
        writer.event(0, event)
    said = json.loads(b"".join(writer.parts()))
    AnthropicMessage.model_validate(said)
    return dict(said)


def streamed(events: Sequence[Event], reply: Told) -> str:
    writer = DIALECT.stream(reply)
    return b"".join([*(writer.event(0, event) for event in events), writer.closing()]).decode()


CALL = [CallPart(0, "call_1", "add"), CallPart(0, arguments='{"n": '), CallPart(0, arguments="4}")]
USAGE = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 5,
    "output_tokens_details": {"thinking_tokens": 2},
}


def test_a_message_is_this() -> None:
    events = [ThoughtDelta('a "'), ThoughtDelta("\n"), AnswerDelta("ß"), *CALL, AnswerDelta("b")]
    assert whole(events, told(Outcome(calls=1))) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [
            {"type": "thinking", "thinking": 'a "\n', "signature": "ponder:"},
            {"type": "text", "text": "ß"},
            {"type": "tool_use", "id": "call_1", "name": "add", "input": {"n": 4}},
            {"type": "text", "text": "b"},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE,
        "ponder": REPORT.model_dump(),
    }


def test_a_stream_is_these_bytes() -> None:
    events = [ThoughtDelta('a "\n'), AnswerDelta("ß"), CallPart(0, "call_1", "add", "{}")]
    usage = json.dumps(USAGE, separators=(",", ":"))
    first = usage.replace(":5", ":0").replace(":2", ":0")
    expected = [
        '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
        '"model":"tiny","content":[],"stop_reason":null,"stop_sequence":null,'
        f'"usage":{first}}}}}',
        '{"type":"ping"}',
        '{"type":"content_block_start","index":0,'
        '"content_block":{"type":"thinking","thinking":"","signature":""}}',
        '{"type":"content_block_delta","index":0,'
        '"delta":{"type":"thinking_delta","thinking":"a \\"\\n"}}',
        '{"type":"content_block_delta","index":0,'
        '"delta":{"type":"signature_delta","signature":"ponder:"}}',
        '{"type":"content_block_stop","index":0}',
        '{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}',
        '{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"\\u00df"}}',
        '{"type":"content_block_stop","index":1}',
        '{"type":"content_block_start","index":2,'
        '"content_block":{"type":"tool_use","id":"call_1","name":"add","input":{}}}',
        '{"type":"content_block_delta","index":2,'
        '"delta":{"type":"input_json_delta","partial_json":"{}"}}',
        '{"type":"content_block_stop","index":2}',
        '{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},'
        f'"usage":{usage},"ponder":{REPORT.model_dump_json()}}}',
        '{"type":"message_stop"}',
    ]
    kinds = [json.loads(data)["type"] for data in expected]
    lines = [f"event: {kind}\ndata: {data}" for kind, data in zip(kinds, expected, strict=True)]
    assert streamed(events, told(Outcome(calls=1))).split("\n\n") == [*lines, ""]


@pytest.mark.parametrize(
    ("outcome", "reason", "sequence"),
    [
        (Outcome(), "end_turn", None),
        (Outcome(stop_string="END"), "stop_sequence", "END"),
        (Outcome(calls=1), "tool_use", None),
        (Outcome(calls=1, stop_string="END"), "tool_use", None),
        (Outcome(finish_reason="length"), "max_tokens", None),
        (Outcome(finish_reason="length", calls=1), "max_tokens", None),
    ],
)
def test_it_is_said_why_it_stopped(outcome: Outcome, reason: str, sequence: str | None) -> None:
    said = whole([AnswerDelta("a")], told(outcome))
    assert (said["stop_reason"], said["stop_sequence"]) == (reason, sequence)


def test_a_message_has_content_in_any_case() -> None:
    for events in ([], [ThoughtDelta("hidden")], [AnswerDelta("")]):
        assert whole(events, told(shows_thought=False))["content"] == [{"type": "text", "text": ""}]
        assert fold(streamed(events, told(shows_thought=False)))["content"] == [
            {"type": "text", "text": ""}
        ]


def test_an_omitted_thought_comes_back_by_its_signature() -> None:
    thought = [ThoughtDelta("2 + 2 "), ThoughtDelta("= 4 ✓")]
    reply = told(omits_thought=True)
    (block, _) = whole([*thought, AnswerDelta("4")], reply)["content"]
    assert block["thinking"] == ""
    text = streamed([*thought, AnswerDelta("4")], reply)
    assert "thinking_delta" not in text and "✓" not in text
    assert fold(text)["content"][0] == block
    assert turns(USER, model(block), USER)[1]["reasoning_content"] == "2 + 2 = 4 ✓"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"path": "x.py", "text": "def f', {"path": "x.py"}),
        ('{"a": [1, 2', {"a": [1, 2]}),
        ("[1]", {}),
        ('{"a" 1}', {}),
        ('{"a": NaN}', {}),
        ('{"a": "6 \\ud83d", "b": 1}', {"a": "6 ?", "b": 1}),  # half of a surrogate pair
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", {}),
    ],
)
def test_a_cut_call_has_what_is_whole_of_its_input(arguments: str, given: dict[str, Any]) -> None:
    call = CallPart(0, "call_1", "write", arguments)
    said = whole([call], told(Outcome(finish_reason="length")))
    assert said["content"][0]["input"] == given
    assert said["stop_reason"] == "max_tokens"


def fold(text: str) -> dict[str, Any]:
    """The message that a stream tells, as Anthropic's clients put it together."""
    message: dict[str, Any] = {}
    written: list[str] = []
    for said in events_of(text):
        MessageEvent.model_validate(said)
        match said:
            case {"type": "message_start"}:
                message = said["message"]
            case {"type": "content_block_start"}:
                assert said["index"] == len(message["content"])
                message["content"].append(said["content_block"])
                written.append("")
            case {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}:
                assert index == len(written) - 1
                ((name, more),) = delta.items()
                if kind == "input_json_delta":
                    written[index] += more
                else:
                    message["content"][index][name] += more
            case {"type": "message_delta"}:
                message |= said["delta"]
                message["usage"] |= said["usage"]
                message["ponder"] = said["ponder"]
    for block, arguments in zip(message["content"], written, strict=True):
        if block["type"] == "tool_use" and arguments:
            block["input"] = from_json(arguments, allow_partial=True)
    return message


def events_of(text: str) -> Iterator[dict[str, Any]]:
    """The data of every event, whose line says its type."""
    assert text.endswith("\n\n")
    for event in text.removesuffix("\n\n").split("\n\n"):
        line, _, data = event.partition("\ndata: ")
        said: dict[str, Any] = json.loads(data)
        assert line == f"event: {said['type']}"
        yield said


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
VALUES = st.recursive(st.none() | st.integers() | TEXTS, lambda some: st.lists(some, max_size=3))


@st.composite
def replies(draw: st.DrawFn) -> list[Event]:
    """Thoughts, texts and calls in any order; the last call may be cut."""
    events: list[Event] = []
    calls = itertools.count()
    kinds = draw(st.lists(st.sampled_from(["thought", "text", "call"]), max_size=6))
    for at, kind in enumerate(kinds):
        if kind == "call":
            arguments = json.dumps(draw(st.dictionaries(TEXTS, VALUES, max_size=3)))
            if at == len(kinds) - 1:
                arguments = arguments[: draw(st.integers(0, len(arguments)))]
            index = next(calls)
            size = draw(st.integers(1, 9))
            events.append(CallPart(index, f"call_{index}", draw(TEXTS)))
            for start in range(0, len(arguments), size):
                events.append(CallPart(index, arguments=arguments[start : start + size]))
        else:
            said = draw(st.lists(TEXTS, min_size=1, max_size=3))
            events += [ThoughtDelta(it) if kind == "thought" else AnswerDelta(it) for it in said]
    return events


@given(replies(), st.booleans(), st.booleans())
def test_the_fold_of_a_stream_is_the_whole_message(
    events: list[Event], shows: bool, omits: bool
) -> None:
    reply = told(shows_thought=shows, omits_thought=omits)
    message = whole(events, reply)
    assert fold(streamed(events, reply)) == message
    shown = [block.get("thinking") for block in message["content"] if block["type"] == "thinking"]
    assert shows or not shown
    assert not omits or not any(shown)


def test_other_requests_may_have_their_replies_so() -> None:
    reply = Told(ChatRequest(id="msg_1", prompts=[Turns([])]))
    reply.outcomes = [Outcome()]
    assert whole([AnswerDelta("a")], reply)["content"] == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize(
    ("status", "sent", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 401, "authentication_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (405, 405, "invalid_request_error"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (502, 502, "api_error"),
        (503, 529, "overloaded_error"),
        (504, 504, "timeout_error"),
    ],
)
def test_errors_are_anthropics(status: int, sent: int, kind: str) -> None:
    error = ApiError(status, "a_code", "it failed", param="a")
    refusal = DIALECT.error(error, "req-1")
    assert refusal.status == sent
    body = {
        "type": "error",
        "error": {"type": kind, "message": "it failed", "code": "a_code", "param": "a"},
        "request_id": "req-1",
    }
    assert json.loads(refusal.body) == body
    broken = DIALECT.stream(told()).broken(error).decode()
    assert next(events_of(broken)) == {**body, "request_id": "msg_1"}
