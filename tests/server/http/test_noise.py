"""What clients send beside a question: strict about meaning, easy about noise."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from ponder.protocol.noise import SYSTEMS, LlamaOptions

from .conftest import Running, Serve

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
ENDLESS = "thinking and thinking. " * 400


def post(running: Running, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{running.url}/v1/chat/completions", json={"messages": HELLO, **fields}, timeout=60
    )


def history(*parts: dict[str, Any], role: str = "assistant", **keys: Any) -> dict[str, Any]:
    """A conversation whose second turn has these parts and keys."""
    said = {"role": role, "content": list(parts) or "hello", **keys}
    return {"messages": [*HELLO, said, *HELLO]}


TEXT = {"type": "text", "text": "hi"}

FIELDS: list[dict[str, Any]] = [
    {"verbosity": "low"},
    {"prediction": {"type": "content", "content": "The answer"}},
    {"prompt_cache_retention": "24h"},
    {"service_tier": "flex"},
    {"service_tier": "priority"},
    {"service_tier": "fast"},
    {"safety_identifier": "x", "prompt_cache_key": "y", "store": False, "metadata": {"a": "b"}},
    {"stream_options": {"include_obfuscation": True}, "stream": True},
    {"top_logprobs": 0},
    {"logprobs": False, "top_logprobs": 0},
    # OpenRouter's
    {"provider": {"order": ["a"]}, "models": ["a", "b"], "route": "fallback"},
    {"transforms": ["middle-out"], "plugins": [], "usage": {"include": True}, "include": []},
    # vLLM's and SGLang's
    {"add_generation_prompt": True, "continue_final_message": False, "skip_special_tokens": True},
    {"length_penalty": 1.0, "use_beam_search": False, "best_of": 1, "echo": False, "priority": 0},
    {"request_id": "a", "documents": [], "mm_processor_kwargs": {}},
    {"spaces_between_special_tokens": True, "return_token_ids": False, "vllm_xargs": {}},
    {"bad_words": [], "include_stop_str_in_output": False, "separate_reasoning": True},
    {"stream_reasoning": True, "reasoning_format": "parsed"},
    {"add_special_tokens": False, "return_token_offsets": False, "mm_payload": "tensors"},
    {"routed_experts_prompt_start": 0, "kv_transfer_params": {}, "truncate_prompt_tokens": -1},
    {"structured_outputs": {"choice": ["hi"], "disable_any_whitespace": False}},
    {"prompt_cache_options": {"mode": "explicit"}, "watermarking": False, "stream_interval": 4},
    # llama.cpp's and Ollama's
    {"num_ctx": 4096, "keep_alive": "5m", "repeat_penalty": 1.0, "cache_prompt": True},
    {"options": {"num_ctx": 4096, "num_gpu": 1}, "mirostat": 0, "typical_p": 1, "id_slot": -1},
    # Numbers of languages that have one kind of number
    {"max_tokens": 100.0, "n": 1.0, "thinking_token_budget": 8.0},
    {"max_tokens": 100, "max_completion_tokens": 200},
]

MESSAGES: list[dict[str, Any]] = [
    history(provider_specific_fields={"reasoning": "so"}, function_call=None, tool_calls=None),
    history(reasoning_details=[{"type": "reasoning.text", "text": "so"}], refusal=None),
    history(thinking_blocks=[{"type": "thinking", "thinking": "so", "signature": ""}]),
    history(id="msg_1", timestamp=1, created_at="now", model="x", usage={}, status="completed"),
    history(images=[], files=[], annotations=[{"type": "url_citation"}], audio=None),
    history(prefix=False, partial=False, weight=1, ponder={"thinking_tokens": 3}),
    history({"type": "thinking", "thinking": "so", "signature": "x"}, TEXT),
    history({"type": "thinking", "thinking": [TEXT]}, TEXT),
    history({"type": "redacted_thinking", "data": "x"}, TEXT),
    history({"type": "refusal", "refusal": "no"}),
    history({**TEXT, "cache_control": {"type": "ephemeral"}, "id": "1"}, role="user"),
    {"messages": [{"type": "text", **HELLO[0]}]},
]


@pytest.mark.parametrize("fields", [*FIELDS, *MESSAGES], ids=str)
def test_what_changes_nothing_is_taken(serve: Serve, fields: dict[str, Any]) -> None:
    answer = post(serve(), **fields)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_field_of_every_system_is_in_these_dialects(
    serve: Serve, system: type[BaseModel]
) -> None:
    running = serve()
    nothing: dict[str, Any] = dict.fromkeys(system.model_fields)
    given = {"options": nothing} if system is LlamaOptions else nothing
    assert post(running, **given).status_code == 200
    raw = httpx.post(f"{running.url}/v1/completions", json={"prompt": "a", **given})
    assert raw.status_code == 200, raw.text


@pytest.mark.parametrize(
    ("fields", "param", "remedy"),
    [
        ({"plugins": [{"id": "web"}]}, "plugins", "no plug-ins of that kind"),
        ({"web_search_options": {}}, "web_search_options", "does not search the web"),
        ({"length_penalty": 1.2}, "length_penalty", "does not search beams"),
        ({"use_beam_search": True}, "use_beam_search", "does not search beams"),
        ({"best_of": 2}, "best_of", "ask for n"),
        ({"echo": True}, "echo", "never repeats a message"),
        ({"documents": [{"text": "x"}]}, "documents", "put the documents into the messages"),
        ({"add_generation_prompt": False}, "add_generation_prompt", "begins every answer itself"),
        ({"skip_special_tokens": False}, "skip_special_tokens", "never shows special tokens"),
        ({"return_token_ids": True}, "return_token_ids", "/tokenize gives"),
        ({"repeat_penalty": 1.1}, "repeat_penalty", "repetition_penalty"),
        ({"mirostat": 2}, "mirostat", "temperature, top_p, top_k and min_p"),
        ({"options": {"temperature": 1}}, "options.temperature", "leave it out"),
        ({"chat_template": "x"}, "chat_template", "the model's own chat template"),
        ({"add_special_tokens": True}, "add_special_tokens", "writes the special tokens"),
        ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params", "hands no caches"),
        ({"truncate_prompt_tokens": 8}, "truncate_prompt_tokens", "shorten the prompt"),
        ({"return_token_offsets": True}, "return_token_offsets", "/tokenize gives"),
        ({"routed_experts_prompt_start": 3}, "routed_experts_prompt_start", "leave it out"),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "echo: true with logprobs"),
        ({"repetition_detection": {}}, "repetition_detection", "ponder.loop_exit"),
        ({"watermarking": True}, "watermarking", "no watermark"),
        ({"moderation": {}}, "moderation", "moderates nothing"),
        ({"audio": {"voice": "a"}}, "audio", "leave it out"),
        (
            {"structured_outputs": {"regex": "a", "disable_any_whitespace": True}},
            "structured_outputs.disable_any_whitespace",
            "at most one blank",
        ),
        (
            {"structured_outputs": {"json": {}, "disable_additional_properties": True}},
            "structured_outputs.disable_additional_properties",
            "additionalProperties: false",
        ),
        ({"separate_reasoning": False}, "separate_reasoning", "include_reasoning: false"),
        ({"reasoning_format": "raw"}, "reasoning_format", "include_reasoning: false"),
        ({"vllm_xargs": {"budget": 5}}, "vllm_xargs", "thinking_token_budget"),
        ({"custom_logit_processor": "x"}, "custom_logit_processor", "thinking_token_budget"),
        (history(prefix=True), "messages.1.prefix", "begins every answer itself"),
        (history(partial=True), "messages.1.partial", "begins every answer itself"),
        (history(images=["x"]), "messages.1.images", "reads text only"),
        (
            history({"type": "image_url", "image_url": {}}),
            "messages.1.content.0.type",
            "send parts of type text",
        ),
        (history({"type": "text"}), "messages.1.content.0", "needs text"),
    ],
)
def test_what_would_change_the_answer_is_refused(
    serve: Serve, fields: dict[str, Any], param: str, remedy: str
) -> None:
    answer = post(serve(), **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert remedy in error["message"]


BUDGET = "a budget is called thinking_token_budget"
LIMIT = "the limit of an answer is max_completion_tokens"


@pytest.mark.parametrize(
    ("field", "remedy"),
    [
        ("max_thinking_length", BUDGET),
        ("thinkingBudget", BUDGET),
        ("reasoning_max_tokens", BUDGET),
        ("thinking_config", BUDGET),
        ("num_predict", LIMIT),
        ("n_predict", LIMIT),
        ("max_new_tokens", LIMIT),
        ("maxOutputTokens", LIMIT),
        ("max_length", LIMIT),
        ("max_output_tokens", LIMIT),
        ("extra_body", "at the top of the body"),
        ("parameters", "at the top of the body"),
        ("no_such_field", "leave it out"),
    ],
)
def test_a_misnamed_budget_or_limit_is_told_its_name(serve: Serve, field: str, remedy: str) -> None:
    error = post(serve(), **{field: 5}).json()["error"]
    assert error["param"] == field
    assert remedy in error["message"].replace("`", "")
    nested = post(serve(), options={field: 5}).json()["error"]
    assert nested["param"] == f"options.{field}"


@pytest.mark.parametrize(
    ("path", "body", "fields", "name"),
    [
        (
            "chat/completions",
            {"messages": HELLO},
            ("format", "text", "output_config", "guided_schema"),
            "response_format",
        ),
        ("completions", {"prompt": "a"}, ("format", "text", "guided_json"), "response_format"),
        (
            "responses",
            {"input": "hi"},
            ("response_format", "structured_outputs", "format", "guided_json"),
            "text.format",
        ),
        (
            "messages",
            {"messages": HELLO, "max_tokens": 9},
            ("response_format", "structured_outputs", "output_format", "text"),
            "output_config.format",
        ),
    ],
)
def test_a_format_of_another_dialect_is_told_its_name(
    serve: Serve, path: str, body: dict[str, Any], fields: tuple[str, ...], name: str
) -> None:
    running = serve()
    for field in fields:
        answer = httpx.post(f"{running.url}/v1/{path}", json={**body, field: {"type": "json"}})
        error = answer.json()["error"]
        assert answer.status_code == 400
        assert error["message"].endswith(
            f"{field} is not supported here: the format of an answer is {name}: send that"
        )


def test_a_misnamed_limit_is_told_its_name_in_its_dialect(serve: Serve) -> None:
    body = {"prompt": "a", "max_new_tokens": 5}
    error = httpx.post(f"{serve().url}/v1/completions", json=body).json()["error"]
    assert error["message"].endswith("the limit of an answer is max_tokens: send that")


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({"google": {"thinking_config": {"thinking_budget": 6}}}, 6),
        ({"custom_params": {"thinking_budget": 6}}, 6),
        ({"chat_template_kwargs": {"thinking_budget": 6}}, 6),
        ({"reasoning": {"max_tokens": 6, "summary": "auto"}}, 6),
        ({"reasoning_effort": {"effort": "low", "summary": "auto"}}, 1024),
        ({"reasoning": {"effort": "low", "summary": "detailed"}}, 1024),
        ({"google": {"thinking_config": {"thinking_level": "low"}}}, 1024),
        ({"think": "low"}, 1024),
        ({"think": False}, 0),
        ({"think": True, "budget": 6}, 6),
        ({"thinking": False}, 0),
        ({"thinking": True}, None),
        ({"thinking": {"type": "auto"}}, None),
        ({"enable_thinking": False}, 0),
        ({"chat_template_kwargs": {"thinking": False}}, 0),
        ({"chat_template_kwargs": {"thinking": True}}, None),
    ],
    ids=str,
)
def test_every_dialect_of_a_budget_is_read(
    serve: Serve, fields: dict[str, Any], budget: int | None
) -> None:
    answer = post(serve(ENDLESS, "ok"), **fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["ponder"]["budget_requested"] == budget


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_format": "hidden"},
        {"google": {"thinking_config": {"include_thoughts": False}}},
        {"reasoning": {"exclude": True}},
    ],
    ids=str,
)
def test_a_thought_is_hidden_in_every_dialect(serve: Serve, fields: dict[str, Any]) -> None:
    reply = post(serve(), **fields).json()
    assert reply["choices"][0]["message"]["reasoning"] is None
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


@pytest.mark.parametrize(
    "said",
    [
        history(reasoning="so"),
        history(reasoning_content="so"),
        history(thinking="so"),
        history(reasoning_details=[{"text": "s"}, {"data": "x"}, {"text": "o"}]),
        history(thinking_blocks=[{"thinking": "so"}]),
        history({"type": "thinking", "thinking": "so"}, {"type": "text", "text": "hello"}),
        history({"type": "reasoning", "text": "so"}, {"type": "text", "text": "hello"}),
        history(
            {"type": "thinking", "thinking": [{"type": "text", "text": "so"}]},
            {"type": "text", "text": "hello"},
        ),
    ],
    ids=str,
)
def test_an_earlier_thought_is_read_by_every_name(said: dict[str, Any]) -> None:
    from ponder.protocol.dialects.chat import ChatCompletionRequest

    turn = ChatCompletionRequest.model_validate(said).messages[1].turn({})
    assert turn == {"role": "assistant", "content": "hello", "reasoning_content": "so"}


@pytest.mark.parametrize(("one", "two"), [(100, 12), (12, 100)])
def test_the_smaller_limit_holds(serve: Serve, one: int, two: int) -> None:
    answer = post(serve("x " * 100), budget=0, max_tokens=one, max_completion_tokens=two).json()
    assert answer["usage"]["completion_tokens"] == 12


def test_a_streams_report_stands_where_proxies_pass_it_on(serve: Serve) -> None:
    """The litellm proxy, seen to (`tests/clients/unmodified`), drops chunks with an empty delta."""
    for chunk in serve().ask(stream=True, n=2)[-2:]:
        (choice,) = chunk.choices
        assert choice.ponder["end_cause"] == "natural"
        assert choice.delta.provider_specific_fields == {"ponder": choice.ponder}
