"""Calls in the answer's text, read by vLLM's own parsers: the one place that knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ponder.engine.protocol import (
    AnswerParser,
    CallPart,
    EngineSetupError,
    Grammar,
    RequestRefusedError,
    Tool,
)


class VLLMCalling:
    """The syntax that vLLM's `--tool-call-parser` calls `name`. Raises `EngineSetupError`."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        from vllm.parser.parser_manager import ParserManager
        from vllm.tool_parsers import ToolParserManager

        known = ToolParserManager.list_registered()
        if name not in known:
            raise EngineSetupError(
                f"--tool-parser {name} is none of vLLM's: it has {', '.join(sorted(known))}"
            )
        self._name = name
        self._tokenizer = tokenizer
        try:
            self._kind = ParserManager.get_parser(
                tool_parser_name=name, enable_auto_tools=True, tokenizer=tokenizer
            )
        except TypeError as error:
            raise EngineSetupError(f"--tool-parser {name}: {error}") from error

    def parsers(self, tools: Sequence[Tool]) -> Callable[[], AnswerParser]:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        request = ChatCompletionRequest(
            messages=[], tools=[_described(tool) for tool in tools], tool_choice="auto"
        )
        return lambda: _Parser(self._kind(self._tokenizer, request.tools), request)

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> Grammar | None:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam
        from vllm.tool_parsers.structural_tag_registry import (
            get_model_structural_tag,
            limit_to_single_tool_call,
        )

        if not required and not any(tool.strict for tool in tools):
            return None
        model = self._kind.tool_parser_cls.structural_tag_model
        if model is None:
            raise RequestRefusedError(
                f"calls as this model writes them ({self._name}) cannot be enforced: use "
                f'`tool_choice` "auto", and no strict tools'
            )
        tag = get_model_structural_tag(
            model,
            [ChatCompletionToolsParam(**_described(tool)) for tool in tools],
            "required" if required else "auto",
            reasoning=False,
        )
        if not several:
            tag = limit_to_single_tool_call(tag)
        return Grammar("structural_tag", tag.model_dump_json())


class _Parser:
    """vLLM's parser of one answer."""

    def __init__(self, parser: Any, request: Any) -> None:
        self._parser = parser
        self._request = request

    def feed(
        self, text: str, token_ids: Sequence[int], *, last: bool = False
    ) -> tuple[str, Sequence[CallPart]]:
        delta = self._parser.parse_delta(
            text, list(token_ids), self._request, prompt_token_ids=[], finished=last
        )
        if delta is None:
            return "", ()
        return delta.content or "", [_part(call) for call in delta.tool_calls or ()]


def _part(call: Any) -> CallPart:
    function = call.function
    if function is None:
        return CallPart(call.index, call.id)
    return CallPart(call.index, call.id, function.name, function.arguments or "")


def _described(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "strict": tool.strict or None,
    }
    return {"type": "function", "function": function}
