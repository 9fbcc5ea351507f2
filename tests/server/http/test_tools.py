"""Tools over HTTP: asked for, called, cut, sent back."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest

from ponder.engine.hermes import Hermes, HermesParser
from ponder.engine.protocol import Grammar, RequestRefusedError, Tool
from ponder.protocol.dialects.chat import ChatCompletionRequest
from ponder.server.answers import answer_rules
from ponder.thought.calls import BLOCK
from server.http.conftest import Running, Serve

TEMPLATE = """\
{%- if tools -%}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
<think>
{% endif -%}"""
ARGUMENTS = {"city": "São Paulo", "days": 3}


def called(name: str = "weather", arguments: Any = ARGUMENTS) -> str:
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def tool(name: str, **fields: Any) -> Any:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, **fields, "parameters": schema}}


HELLO = {"role": "user", "content": "Hello"}
TOOLS = [tool("weather", description="Tells the weather."), tool("time")]


@pytest.fixture
def running(serve: Serve) -> Running:
    thought = "They ask for the weather, so I look it up.</think>\n\n"
    return serve(thought + called(), "Let me look. " + called(), template=TEMPLATE)


@pytest.mark.parametrize("budget", [0, 16, -1])
def test_a_call_comes_whole_and_in_parts(running: Running, budget: int) -> None:
    fields = {"tools": TOOLS, "thinking_token_budget": budget, "seed": 1}
    (choice,) = running.ask(**fields).choices
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == ARGUMENTS
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content in (None, "Let me look.")
    said = [chunk.choices[0] for chunk in running.ask(**fields, stream=True)]
    parts = [part for each in said for part in each.delta.tool_calls or ()]
    first, *rest = parts
    assert (first.index, first.type, first.function.name) == (0, "function", "weather")
    assert first.id and first.function.arguments == ""
    assert all((part.id, part.function.name) == (None, None) for part in rest)
    whole = "".join(part.function.arguments for part in parts)
    assert whole == call.function.arguments
    content = [each.delta.content for each in said if each.delta.content is not None]
    assert ("".join(content) or None) == choice.message.content
    assert said[-1].finish_reason == "tool_calls"
    report = said[-1].ponder
    assert report["thinking_tokens"] <= (budget if budget >= 0 else 10**9)


def test_the_official_helper_folds_a_stream(running: Running) -> None:
    with running.client() as client:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS}
        with client.chat.completions.stream(**asked) as stream:  # type: ignore[arg-type]
            folded = stream.get_final_completion().choices[0]
        assert folded.finish_reason == "tool_calls"
        (call,) = folded.message.tool_calls or ()
        assert json.loads(call.function.arguments) == ARGUMENTS


def test_each_choice_has_its_own_calls(running: Running) -> None:
    for choice in running.ask(tools=TOOLS, n=2).choices:
        assert [call.function.name for call in choice.message.tool_calls] == ["weather"]


@pytest.mark.parametrize(("stream", "chunk"), [(True, 1), (False, 32)])
def test_a_long_call_never_holds_the_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, stream: bool, chunk: int
) -> None:
    """Between two turns of the loop, at most a chunk and the block before it are parsed."""
    beats, parsed = 0, Counter[int]()
    feed = HermesParser.feed

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    def counted(parser: HermesParser, text: str, ids: Sequence[int], *, last: bool = False) -> Any:
        parsed[beats] += len(ids)
        return feed(parser, text, ids, last=last)

    monkeypatch.setattr(HermesParser, "feed", counted)
    long = {"text": "It rains in Bonn. " * 1000}
    thought = "I write it.</think>\n\n"
    running = serve(
        thought + called(arguments=long),
        template=TEMPLATE,
        chunk_sizes=(chunk,),
        max_model_len=32768,
    )
    beating = asyncio.run_coroutine_threadsafe(beat(), running.loop)
    reply = running.ask(tools=TOOLS, stream=stream)
    beating.cancel()
    choices = [choice for part in (reply if stream else [reply]) for choice in part.choices]
    said = [choice.delta if stream else choice.message for choice in choices]
    calls = [call for message in said for call in message.tool_calls or ()]
    assert json.loads("".join(call.function.arguments for call in calls)) == long
    assert parsed.total() > 6000
    assert max(parsed.values()) < chunk + BLOCK


def test_a_named_call_just_stops(running: Running) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    (choice,) = running.ask(tools=TOOLS, tool_choice=named).choices
    assert (choice.finish_reason, len(choice.message.tool_calls)) == ("stop", 1)
    held = json.loads(running.engine.requests[-1][1].grammar.rule)
    assert "weather" in json.dumps(held) and '"time' not in json.dumps(held)


def test_the_model_is_told_of_the_tools_that_may_be_called(running: Running) -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "time"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    running.ask(tools=TOOLS, tool_choice=choice, thinking_token_budget=0)
    prompt = running.service.model.tokenizer.spell(running.engine.requests[-1][0])
    assert '"time"' in prompt and "Tells the weather" not in prompt
    assert running.engine.requests[-1][1].grammar is None


def test_no_call_is_read_that_nobody_asked_for(running: Running) -> None:
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        (choice,) = running.ask(**fields).choices
        assert choice.message.tool_calls is None
        assert "<tool_call>" in choice.message.content
        assert choice.finish_reason == "stop"


def test_a_call_in_a_thought_is_thought_where_there_are_no_tools(serve: Serve) -> None:
    running = serve("I would write <tool_call> here.</think>\n\nSo.", template=TEMPLATE)
    (choice,) = running.ask().choices
    assert choice.message.reasoning == "I would write <tool_call> here."
    assert choice.message.content == "So."


@pytest.mark.parametrize("strict", [False, True])
def test_strict_tools_hold_the_answer(running: Running, strict: bool) -> None:
    running.ask(tools=[tool("weather", strict=strict)])
    assert (running.engine.requests[-1][1].grammar is not None) == strict


def test_a_call_that_a_limit_cuts_can_be_sent_back(running: Running) -> None:
    (choice,) = running.ask(tools=TOOLS, thinking_token_budget=0, max_completion_tokens=30).choices
    assert choice.finish_reason == "length"
    (call,) = choice.message.tool_calls
    with pytest.raises(ValueError):
        json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "cut"}
    messages = [{"role": "user", "content": "Hi"}, choice.message.model_dump(), result]
    assert running.ask(messages=messages, tools=TOOLS).choices


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"city": "Paris \\ud83d"}', '{"city": "Paris ?"}'),  # half of a surrogate pair
        ("[" * 5000 + "]" * 5000, "{}"),
        ('{"a": ' + "[" * 600 + "]" * 600 + "}", None),  # a template may nest so deeply, or not
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/tokenize"])
def test_no_call_ends_a_conversation_for_good(
    running: Running, path: str, arguments: str, told: str | None
) -> None:
    function = {"name": "weather", "arguments": arguments}
    said = {"role": "assistant", "content": None}
    call = {"id": "1", "type": "function", "function": function}
    result = {"role": "tool", "tool_call_id": "1", "content": "Sun."}
    items = [
        {"type": "function_call", "call_id": "1", **function},
        {"type": "function_call_output", "call_id": "1", "output": "Sun."},
    ]
    asked = {"role": "user", "content": "Hi"}
    given = {"input": [asked, *items]} if path.endswith("responses") else {
        "messages": [asked, {**said, "tool_calls": [call]}, result]
    }  # fmt: skip
    reply = httpx.post(running.url + path, json=given, timeout=30)
    assert reply.status_code in ((200,) if told else (200, 400)), reply.text
    if told and path != "/tokenize":
        prompt, _ = running.engine.requests[-1]
        assert f'"arguments": {told}' in running.service.model.tokenizer.decode(prompt)


@pytest.mark.parametrize("named", ["json", "structural_tag"])
def test_a_rule_that_nests_too_deeply_is_refused(running: Running, named: str) -> None:
    with pytest.raises(openai.BadRequestError, match="nested too deeply"):
        running.ask(structured_outputs={named: "[" * 5000 + "]" * 5000})


@pytest.mark.parametrize("named", ["reasoning", "reasoning_content", "details", None])
def test_a_loop_is_rendered_as_the_template_has_it(running: Running, named: str | None) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    said: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
    if named == "details":
        said["reasoning_details"] = [{"type": "reasoning.text", "text": "So."}]
    elif named is not None:
        said[named] = "So."
    result = {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "Sun."}]}
    asked = {"role": "user", "content": "Hi"}
    running.ask(messages=[asked, said, result], tools=TOOLS, thinking_token_budget=20)
    turn = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {}}}
        ],
    }
    if named is not None:
        turn["reasoning_content"] = "So."
    tokenizer = running.service.model.tokenizer
    rendered = tokenizer.render(
        [asked, turn, {"role": "tool", "content": "Sun."}], {"tools": TOOLS}
    )
    assert running.engine.requests[0][0] == tokenizer.encode(rendered)


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools.1", "rename one"),
        ({"tool_choice": "required"}, "tool_choice", "send some"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "fly"}}},
            "tool_choice",
            "'fly', which is none of tools",
        ),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools.0.type", "type function alone"),
        ({"tools": TOOLS, "tool_choice": "required", "min_tokens": 3}, "min_tokens", "leave"),
    ],
)
def test_what_cannot_be_called_is_refused(
    running: Running, fields: dict[str, Any], param: str, says: str
) -> None:
    extra = {name: fields.pop(name) for name in ("min_tokens",) if name in fields}
    with pytest.raises(openai.BadRequestError, match=says) as refused:
        running.ask(**fields, **extra)
    assert refused.value.param == param
    assert running.engine.requests == []


ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat/completions": ("max_completion_tokens", {"messages": [HELLO], "tools": TOOLS}),
    "messages": (
        "max_tokens",
        {
            "messages": [HELLO],
            "tools": [{"name": "weather", "input_schema": {"type": "object"}}],
        },
    ),
    "responses": (
        "max_output_tokens",
        {
            "input": "Hello",
            "tools": [{"type": "function", **TOOLS[0]["function"], "strict": False}],
        },
    ),
}


CUT = {
    "chat/completions": '"finish_reason":"length"',
    "messages": '"stop_reason":"max_tokens"',
    "responses": '"reason":"max_output_tokens"',
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("before", ["", "Well. "])
def test_a_call_that_is_cut_before_its_name_shows_no_markup(
    serve: Serve, route: str, stream: bool, choice: str, before: str
) -> None:
    running = serve(before + called(), template=TEMPLATE)
    limit, asked = ROUTES[route]
    name = {"auto": "auto", "required": "any"}[choice] if route == "messages" else choice
    body = {
        **{"model": "tiny", "budget": 0, "stream": stream, limit: 8},
        **asked,
        "tool_choice": {"type": name} if route == "messages" else name,
    }
    reply = httpx.post(f"{running.url}/v1/{route}", json=body, timeout=30)
    assert reply.status_code == 200, reply.text
    assert "tool_call>" not in reply.text and "{\\" not in reply.text
    assert CUT[route] in reply.text.replace(" ", "")
    assert said(reply.text) == before.rstrip()


def said(reply: str) -> str:
    """The text of an answer, in whatever dialect: in parts, or once in a whole reply."""
    parts = [
        line.removeprefix("data: ") for line in reply.splitlines() if line.startswith("data: {")
    ]
    keys = ("content", "delta", "text")
    if not parts:
        parts, keys = [reply], ("content", "text")
    found = [text for part in parts for text in _texts(json.loads(part), keys)]
    return "".join(found)


def _texts(value: Any, keys: Sequence[str]) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _texts(item, keys)]
    if not isinstance(value, dict) or str(value.get("type", "")).endswith((".done", ".incomplete")):
        return []
    return [
        text
        for key, inner in value.items()
        for text in ([inner] if key in keys and isinstance(inner, str) else _texts(inner, keys))
    ]


class Unheld(Hermes):
    """A syntax without a grammar."""

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> Grammar | None:
        if required or any(tool.strict for tool in tools):
            raise RequestRefusedError("calls cannot be enforced")
        return None


STRICT = [tool("weather", strict=True)]
AS_JSON = {"type": "json_object"}


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        ("chat/completions", {"tools": STRICT}, "tools"),
        ("chat/completions", {"tools": STRICT, "response_format": AS_JSON}, "tools"),
        ("chat/completions", {"tools": TOOLS, "response_format": AS_JSON}, "response_format"),
        ("chat/completions", {"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ("responses", {"tools": [{"type": "function", **STRICT[0]["function"]}]}, "tools"),
    ],
)
def test_what_a_syntax_cannot_hold_names_a_field_that_was_sent(
    running: Running, route: str, fields: dict[str, Any], param: str
) -> None:
    object.__setattr__(running.engine.facts, "calling", Unheld())
    asked = (
        {"messages": [{"role": "user", "content": "Hello"}]}
        if route == "chat/completions"
        else {"input": "Hello"}
    )
    reply = httpx.post(f"{running.url}/v1/{route}", json={"model": "tiny", **asked, **fields})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert running.engine.requests == []


@pytest.mark.parametrize(
    ("fields", "free_text"),
    [
        ({"tools": STRICT}, True),
        ({"tools": TOOLS}, True),
        ({"tools": STRICT, "tool_choice": "required"}, False),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, False),
    ],
)
def test_text_stands_beside_calls_where_a_grammar_leaves_room(
    running: Running, fields: dict[str, Any], free_text: bool
) -> None:
    body = json.dumps({"messages": [HELLO], **fields})
    request = ChatCompletionRequest.model_validate_json(body).neutral({})
    assert answer_rules(request, running.engine.facts, {}).free_text == free_text


def test_a_strict_tool_that_no_grammar_holds_is_named(running: Running) -> None:
    odd = tool("odd", strict=True)
    odd["function"]["parameters"] = {"type": "object", "not": {"required": ["a"]}}
    for fields in ({}, {"tool_choice": "required"}, {"response_format": AS_JSON}):
        with pytest.raises(openai.BadRequestError, match="tool 'odd': `not` at #") as refused:
            running.ask(tools=[*TOOLS, odd], **fields)
        assert refused.value.param == "tools"
    odd["function"]["strict"] = False
    assert running.ask(tools=[*TOOLS, odd], tool_choice="required").choices


def test_a_model_without_tools_says_so(serve: Serve) -> None:
    running = serve(template=TEMPLATE[TEMPLATE.index("{%- for message") :])
    with pytest.raises(openai.BadRequestError, match="tells it of no tools") as refused:
        running.ask(tools=TOOLS)
    assert refused.value.code == "tools_unsupported"
    assert running.ask(tools=TOOLS, tool_choice="none").choices
    assert running.ask(tools=[]).choices
