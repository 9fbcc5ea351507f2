"""Recognises how a model writes calls, by the earlier calls that its chat template writes."""

from __future__ import annotations

from typing import NamedTuple


class Syntax(NamedTuple):
    """A syntax of calls: texts that all its chat templates hold, and the marker it begins with.

    `parser` is vLLM's name for it; None where vLLM does not read it.
    """

    needles: tuple[str, ...]
    parser: str | None
    marker: str | None


SYNTAXES = (
    Syntax(
        ("<|channel|>commentary", "functions."), "openai", "<|channel|>commentary to=functions."
    ),
    Syntax(("<tool_calls{}>",), "hy_v3", "<tool_calls:opensource>"),
    Syntax(("<arg_key>",), "glm47", "<tool_call>"),
    Syntax(("<seed:tool_call>",), "seed_oss", "<seed:tool_call>"),
    Syntax(("<minimax:tool_call>",), "minimax_m2", "<minimax:tool_call>"),
    Syntax(("minimax[", "<invoke"), "minimax_m3", "]<]minimax[>[<tool_call>"),
    Syntax(("<function=", "<parameter="), "qwen3_coder", "<tool_call>"),
    Syntax(("<|tool_calls_section_begin|>",), "kimi_k2", "<|tool_calls_section_begin|>"),
    Syntax(("<|open|>", "<|sep|>"), "kimi_k3", "<|open|>tools<|sep|>"),
    Syntax(("｜DSML｜", "function_calls"), "deepseek_v32", "<｜DSML｜function_calls>"),
    Syntax(("｜DSML｜", "tool_calls>"), "deepseek_v4", "<｜DSML｜tool_calls>"),
    Syntax(("<｜tool▁sep｜>", "set thinking"), "deepseek_v31", "<｜tool▁calls▁begin｜>"),
    Syntax(("<|tool_call>",), "gemma4", "<|tool_call>"),
    Syntax(("<|tool_call_start|>",), "lfm2", "<|tool_call_start|>"),
    Syntax(("<|START_ACTION|>",), "cohere_command3", "<|START_ACTION|>"),
    Syntax(("<|tools_prefix|>",), "apertus", "<|tools_prefix|>"),
    Syntax(("[TOOL_CALLS]",), "mistral", "[TOOL_CALLS]"),
    Syntax(("<|start_of_role|>", "<|tool_call|>"), "granite", "<|tool_call|>"),
    Syntax(("<|start_of_role|>", "<tool_call>"), "granite4", "<tool_call>"),
    Syntax(
        ("<|start_header_id|>", '"parameters": dictionary of argument name'), "llama3_json", None
    ),
    Syntax(("[BEGIN FINAL RESPONSE]", "<tool_calls>"), None, "<tool_calls>"),
    Syntax(("<tool_call>",), "hermes", "<tool_call>"),
)


def syntax(chat_template: str) -> Syntax | None:
    """How a template writes calls; None where it writes no known syntax."""
    fitting = (known for known in SYNTAXES if all(n in chat_template for n in known.needles))
    return next(fitting, None)


def parser(chat_template: str) -> str | None:
    """vLLM's name for the parser of a template's calls; None where it has none."""
    known = syntax(chat_template)
    return None if known is None else known.parser
