"""Makes what a request wants of its answers into rules that an engine keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ponder.engine.protocol import Calling, EngineFacts, Grammar, RequestRefusedError
from ponder.protocol.chat import ChatRequest, ToolUse
from ponder.protocol.errors import ApiError, invalid_request
from ponder.protocol.grammars import tag
from ponder.thought.calls import CallRules
from ponder.thought.segment import AnswerRules

_ENDS_ITSELF = "an answer that has to follow a format ends by itself: leave {} out"


def answer_rules(
    request: ChatRequest, facts: EngineFacts, special_tokens: Mapping[int, str]
) -> AnswerRules:
    """The rules of each answer. Raises 400, before any thought, for rules that nobody can keep.

    `special_tokens` are the special tokens with which the model may write a call.
    """
    rules, tools = request.rules, request.tools
    calls, grammar, free_text = None, request.grammar, False
    if tools is not None and tools.choice != "none":
        calls, grammar = _calls(tools, grammar, facts, special_tokens)
        free_text = tools.choice == "auto" and request.grammar is None
    if grammar is not None:
        _check(request, grammar, facts)
    return replace(rules, grammar=grammar, free_text=free_text, calls=calls)


def _calls(
    tools: ToolUse,
    grammar: Grammar | None,
    facts: EngineFacts,
    special_tokens: Mapping[int, str],
) -> tuple[CallRules, Grammar | None]:
    """The rules that read calls, and the grammar of an answer: calls, a format, or either."""
    calling = facts.calling
    if calling is None:
        raise ApiError(
            400,
            "tools_unsupported",
            "this server does not know how its model writes calls: leave `tools` out, or start it "
            "with --tool-parser",
            field="tools",
        )
    spelt = {} if calling.headed else special_tokens
    rules = CallRules(calling.parsers(tools.tools), spelt, tools.parallel)
    required = tools.choice in ("required", "named")
    try:
        held = calling.grammar(
            tools.tools, required=required or grammar is not None, several=tools.parallel
        )
    except RequestRefusedError as error:
        strict = any(tool.strict for tool in tools.tools)
        field = "tool_choice" if required else "tools" if strict else "format"
        raise invalid_request(str(error), error.param or field) from error
    if held is None:
        return rules, grammar
    if required or grammar is None:
        return rules, tag(_form(held), blank=not calling.headed)
    return rules, _either(grammar, held, calling)


def _either(grammar: Grammar, calls: Grammar, calling: Calling) -> Grammar:
    """A grammar of answers in a format or of calls."""
    if grammar.kind != "structural_tag":
        raise invalid_request(
            f"an answer cannot follow a {grammar.kind} or call `tools`: leave one of them out",
            "tools",
        )
    forms = [calling.beside_calls(_form(grammar)), _form(calls)]
    return tag({"type": "or", "elements": forms}, blank=not calling.headed)


def _form(grammar: Grammar) -> Mapping[str, Any]:
    form: Mapping[str, Any] = json.loads(grammar.rule)["format"]
    return form


def _check(request: ChatRequest, grammar: Grammar, facts: EngineFacts) -> None:
    field = "tools" if request.grammar is None else "format"
    if facts.check is None:
        raise ApiError(
            400,
            "format_unsupported",
            "this server's engine cannot enforce a format: leave `format` out",
            field=field,
        )
    for name, given in (
        ("stop_token_ids", request.rules.stop_token_ids),
        ("ignore_eos", request.sampling.ignore_eos),
        ("min_tokens", request.rules.min_tokens),
    ):
        if given:
            raise invalid_request(_ENDS_ITSELF.format(name), name)
    try:
        facts.check(grammar)
    except RequestRefusedError as error:
        raise invalid_request(f"`{field}`: {error}", field) from error
