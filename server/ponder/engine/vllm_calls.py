"""Reads calls in the answer's text with vLLM's parsers: the only module that uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ponder.engine.grammars import check_strict, holds
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

    headed = False

    def __init__(self, name: str, tokenizer: Any) -> None:
        from vllm.parser.parser_manager import ParserManager
        from vllm.tool_parsers import ToolParserManager

        known = ToolParserManager.list_registered()
        if name not in known:
            raise EngineSetupError(
                f"--tool-parser {name} is unknown to vLLM, which has {', '.join(sorted(known))}"
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
        names: Mapping[int, str] = {}
        if not self._kind.tool_parser_cls.engine_based_streaming:
            ids = self._tokenizer.all_special_ids
            names = dict(zip(ids, self._tokenizer.convert_ids_to_tokens(ids), strict=True))
        return lambda: _Parser(self._kind(self._tokenizer, request.tools), request, names)

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
                f'`tool_choice` "auto", no strict tools, and no format beside tools'
            )
        for tool in tools:
            check_strict(tool)
        if required:  # there is a grammar anyway, and models invent arguments
            tools = [replace(tool, strict=holds(dict(tool.parameters))) for tool in tools]
        tag = get_model_structural_tag(
            model,
            [ChatCompletionToolsParam(**_described(tool)) for tool in tools],
            "required" if required else "auto",
            reasoning=False,
        )
        if not several:
            tag = limit_to_single_tool_call(tag)
        return Grammar("structural_tag", json.dumps(_bounded(tag.model_dump(mode="json"))))

    def beside_calls(self, form: Mapping[str, Any]) -> Mapping[str, Any]:
        return form


class _Parser:
    """vLLM's parser of one answer.

    Some older parsers lose text that comes in one piece with a special token: the special tokens in
    `names` are fed alone.
    """

    def __init__(self, parser: Any, request: Any, names: Mapping[int, str]) -> None:
        self._parser = parser
        self._request = request
        self._names = names

    def feed(
        self, text: str, token_ids: Sequence[int], *, last: bool = False
    ) -> tuple[str, Sequence[CallPart]]:
        said, parts = "", list[CallPart]()
        pieces = [(*piece, False) for piece in self._pieces(text, token_ids)]
        if last:  # separately: Llama's parser finds no call in a piece that is marked as the last
            pieces.append(("", [], True))
        for piece, ids, finished in pieces:
            delta = self._parser.parse_delta(
                piece, ids, self._request, prompt_token_ids=[], finished=finished
            )
            if delta is not None:
                said += delta.content or ""
                parts += map(_part, delta.tool_calls or ())
        return said, parts

    def _pieces(self, text: str, token_ids: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        """The text and its tokens, cut before and behind special ones."""
        ids: list[int] = []
        for token_id in token_ids:
            name = self._names.get(token_id)
            if name is None or name not in text:
                ids.append(token_id)
                continue
            before, _, text = text.partition(name)
            if before or ids:
                yield before, ids
            yield name, [token_id]
            ids = []
        yield text, ids


def _bounded(tag: Any) -> Any:
    """The tag, with arguments that are always an object and at most one blank in a place."""
    if isinstance(tag, list):
        return [_bounded(part) for part in tag]
    if not isinstance(tag, dict):
        return tag
    if tag.get("type") != "json_schema":
        return {name: _bounded(value) for name, value in tag.items()}
    schema = tag["json_schema"]
    bound = {"max_whitespace_cnt": 1} if tag.get("style") == "json" else {}
    return {**tag, "json_schema": {"type": "object"} if schema in (True, {}) else schema, **bound}


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
