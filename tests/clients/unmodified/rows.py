"""What each client is asked to do, and what must hold of what it saw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """`script`'s function `name` runs in the environment `client`.

    `holds` are keys of what it saw and what they must be: a value, a pattern that the value's text
    has, or a range. `quick` rows run with every test, the others in `make test-clients`. `server`
    names the fixture that serves it.
    """

    client: str
    script: str
    name: str
    does: str
    holds: Mapping[str, Any]
    quick: bool = False
    server: str = "server"

    @property
    def id(self) -> str:
        return f"{self.client}-{self.name}"

    def broken(self, saw: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that do not hold, with what was seen."""
        return {
            name: saw.get(name)
            for name, wanted in self.holds.items()
            if not fits(saw.get(name), wanted)
        }


def fits(seen: Any, wanted: Any) -> bool:
    """
    >>> fits("The answer is 33.", re.compile("33")), fits(8, range(9)), fits([1], [1])
    (True, True, True)
    """
    if isinstance(wanted, re.Pattern):
        return seen is not None and wanted.search(str(seen)) is not None
    if isinstance(wanted, range):
        return seen in wanted
    return bool(seen == wanted)


@dataclass(frozen=True)
class _Script:
    """The rows of one client's script."""

    client: str
    script: str
    quick: bool = False
    server: str = "server"

    def row(self, name: str, does: str, holds: Mapping[str, Any]) -> Row:
        return Row(
            client=self.client,
            script=self.script,
            name=name,
            does=does,
            holds=holds,
            quick=self.quick,
            server=self.server,
        )


RIGHT = {"content": re.compile("33")}
THOUGHT = {"reasoning": re.compile("42 - 9 = 33")}
WITHIN = {"reasoning_tokens": range(1, 65)}
NONE = {"reasoning_tokens": 0}
TOLD = {"content": "The answer is 33.", "cause": "natural"}
PARSED = {"parsed": "Answer"}
CALLED = {"name": "calculate"}
SOME = {"content": re.compile(".")}

_openai = _Script("openai", "openai_python.py", quick=True)
_anthropic = _Script("anthropic", "anthropic_python.py", quick=True)
_litellm = _Script("litellm", "litellm_sdk.py")
_proxy = _Script("litellm", "litellm_sdk.py", server="proxy")
_langchain = _Script("langchain", "with_langchain.py")
_pydantic = _Script("pydantic-ai", "with_pydantic_ai.py")
_instructor = _Script("instructor", "with_instructor.py")
_agents = _Script("openai-agents", "with_agents.py")
_llama = _Script("llama-index", "with_llama_index.py")
_llm = _Script("llm", "with_llm.py")
_harness = _Script("lm-eval", "with_lm_eval.py")
_inspect = _Script("inspect-ai", "with_inspect.py")
_guide = _Script("guidellm", "with_guidellm.py")
_bench = _Script("vllm", "with_vllm_bench.py")
_node = _Script("openai-node", "openai_node.mjs", quick=True)
_ai = _Script("ai-sdk", "ai_sdk.mjs")
_codex = _Script("codex", "with_codex.py", server="agent")
_claude = _Script("claude-code", "with_claude_code.py", server="agent")
_qwen = _Script("qwen-code", "with_qwen_code.py", server="agent")
_opencode = _Script("opencode", "with_opencode.py", server="agent")
RAN = {"ran": True, "said": re.compile("All done")}

ROWS = (
    _openai.row("chat", "`chat.completions.create` with a budget", {**RIGHT, **THOUGHT, **WITHIN}),
    _openai.row("cut", "a budget of 8", {"reasoning_tokens": 8, "cause": "budget"}),
    _openai.row("effort", '`reasoning_effort="none"`', {**NONE, "cause": "disabled"}),
    _openai.row(
        "stream", "a stream, its usage and its report", {**RIGHT, **WITHIN, "cause": "natural"}
    ),
    _openai.row(
        "stream_helper", "`chat.completions.stream`", {**RIGHT, "deltas": "The answer is 33."}
    ),
    _openai.row("second_turn", "its own message sent back", RIGHT),
    _openai.row("parse", "`chat.completions.parse`", {**PARSED, **WITHIN}),
    _openai.row("parse_stream", "`stream` with a response format", PARSED),
    _openai.row("tools", "a call, its result, the answer", {**CALLED, **RIGHT}),
    _openai.row("parsed_tools", "`pydantic_function_tool`", {"parsed": "Calculate"}),
    _openai.row("responses", "`responses.create`", {**RIGHT, **WITHIN, "status": "completed"}),
    _openai.row(
        "responses_stream",
        "`responses.stream`",
        {**RIGHT, "first": "response.created", "last": "response.completed"},
    ),
    _openai.row("responses_parse", "`responses.parse`", PARSED),
    _openai.row("completions", "`completions.create`", {"tokens": 4}),
    _openai.row("echo", "`echo` with `logprobs`", {"first": None, "scored": True}),
    _openai.row("models", "`models.list`, `models.retrieve`", {"retrieved": "tiny"}),
    _anthropic.row(
        "messages", "`thinking.budget_tokens`", {**RIGHT, "types": ["thinking", "text"]}
    ),
    _anthropic.row("stream", "`messages.stream`", {**RIGHT, "deltas": "The answer is 33."}),
    _anthropic.row("second_turn", "its own blocks sent back", RIGHT),
    _anthropic.row("tools", "a call, its result, the answer", {**CALLED, **RIGHT}),
    _anthropic.row("count_tokens", "`messages.count_tokens`", {"tokens": range(5, 100)}),
    _node.row("chat", "a budget as a plain field", {**RIGHT, **THOUGHT, **WITHIN}),
    _node.row("stream", "`stream: true`", {**RIGHT, **THOUGHT, "cause": "natural"}),
    _node.row("streamHelper", "`chat.completions.stream`", RIGHT),
    _node.row("tools", "`runTools`", RIGHT),
    _node.row("responses", "`responses.create`", RIGHT),
    _ai.row("generate", "`generateText`, budget in `providerOptions`", {**RIGHT, **THOUGHT}),
    _ai.row("stream", "`streamText`", {**RIGHT, **THOUGHT}),
    _ai.row("effort", '`reasoningEffort: "none"`', {"reasoning": ""}),
    _ai.row("object", "`Output.object`", {"parsed": "number"}),
    _ai.row("tools", "a tool and its result", {"called": True}),
    _ai.row("responses", "`createOpenAI()(model)`", RIGHT),
    _litellm.row("openai", "`openai/…`, budget in `extra_body`", {**RIGHT, **THOUGHT, **WITHIN}),
    _litellm.row("hosted_vllm", "`hosted_vllm/…`, budget as a keyword", {**RIGHT, **WITHIN}),
    _litellm.row("stream", "a stream", {**RIGHT, **THOUGHT}),
    _litellm.row("second_turn", "its own message sent back", RIGHT),
    _litellm.row("text_completion", "`text_completion`", {"tokens": 4}),
    _litellm.row("tools", "a call", CALLED),
    _litellm.row("responses", "`responses`", {"types": re.compile("message")}),
    _proxy.row("proxy", "behind the proxy, budget in `extra_body`", {**RIGHT, **WITHIN}),
    _proxy.row(
        "proxy_stream",
        "a stream's report behind the proxy, as `hosted_vllm/…` and `openai/…`",
        {"hosted": TOLD, "openai": TOLD},
    ),
    _langchain.row(
        "invoke", "`extra_body`, the report in headers", {**RIGHT, **WITHIN, "cause": "natural"}
    ),
    _langchain.row("effort", '`reasoning_effort="none"`', NONE),
    _langchain.row("stream", "`stream`", RIGHT),
    _langchain.row("completions", "`OpenAI()`", SOME),
    _langchain.row("structured", "`with_structured_output`", PARSED),
    _langchain.row("tools", "`bind_tools`, a call and its result", {**CALLED, **RIGHT}),
    _pydantic.row("chat", "`extra_body`", {**RIGHT, "parts": ["thinking", "text"]}),
    _pydantic.row("stream", "`run_stream`", RIGHT),
    _pydantic.row("second_turn", "`message_history`", RIGHT),
    _pydantic.row("native_output", "`NativeOutput`", PARSED),
    _pydantic.row("tool_output", "`output_type`", PARSED),
    _pydantic.row("responses", "`OpenAIResponsesModel`", RIGHT),
    _instructor.row("tools", "`Mode.TOOLS`", PARSED),
    _instructor.row("json", "`Mode.JSON`", {"parsed": "Anything"}),
    _instructor.row("json_schema", "`Mode.JSON_SCHEMA`", PARSED),
    _agents.row("chat", "`OpenAIChatCompletionsModel`", RIGHT),
    _agents.row("stream", "`run_streamed`", RIGHT),
    _agents.row("responses", "its default model class", RIGHT),
    _agents.row("tools", "`function_tool`", {"kinds": re.compile("tool_call_item")}),
    _agents.row(
        "responses_tools",
        "`run_streamed` of its default model class, a call and its result",
        {
            "kinds": re.compile("tool_call_item.*tool_call_output_item.*message_output_item"),
            "content": re.compile("."),
            "turns": 2,
            "deltas": True,
        },
    ),
    _llama.row("chat", "`additional_kwargs`", RIGHT),
    _llama.row("stream", "`stream_chat`", RIGHT),
    _llama.row("complete", "`complete`, its default", SOME),
    _llm.row("prompt", "`llm -m tiny`", RIGHT),
    _llm.row("effort", "`-o reasoning_effort none`", SOME),
    _llm.row("schema", "`--schema`", {"content": re.compile("answer")}),
    _harness.row(
        "chat", "`local-chat-completions`, budget in `--gen_kwargs`", {"right": range(1, 2)}
    ),
    _harness.row(
        "loglikelihood",
        "`local-completions`, against an echo's own log probabilities",
        {"documents": 5, "alike": True, "accuracy": True},
    ),
    _inspect.row("task", "a task, `--extra-body`", {"right": range(1, 2), "status": "success"}),
    _guide.row("run", "`guidellm run`", {"completed": 10, "failed": 0}),
    _bench.row("chat", "`--backend openai-chat`", {"completed": 4, "failed": 0}),
    _bench.row("completions", "`--backend openai`", {"completed": 4, "failed": 0}),
    _bench.row("responses", "`--backend openai-responses`", {"completed": 4, "failed": 0}),
    _codex.row("turn", "a turn with one call of its shell", RAN),
    _claude.row("turn", "a turn with one call of its shell", RAN),
    _qwen.row("turn", "a turn with one call of its shell", RAN),
    _opencode.row("turn", "a turn with one call of its shell", RAN),
)
