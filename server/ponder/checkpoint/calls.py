"""Recognises how a model writes calls, by the earlier calls that its chat template writes."""

from __future__ import annotations

SYNTAXES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<|channel|>commentary", "functions."), "openai"),
    (("<tool_calls{}>",), "hy_v3"),
    (("<arg_key>",), "glm47"),
    (("<seed:tool_call>",), "seed_oss"),
    (("<minimax:tool_call>",), "minimax_m2"),
    (("minimax[", "<invoke"), "minimax_m3"),
    (("<function=", "<parameter="), "qwen3_coder"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("<|open|>", "<|sep|>"), "kimi_k3"),
    (("｜DSML｜", "function_calls"), "deepseek_v32"),
    (("｜DSML｜", "tool_calls>"), "deepseek_v4"),
    (("<｜tool▁sep｜>", "set thinking"), "deepseek_v31"),
    (("<|tool_call>",), "gemma4"),
    (("<|tool_call_start|>",), "lfm2"),
    (("<|START_ACTION|>",), "cohere_command3"),
    (("<|tools_prefix|>",), "apertus"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<|start_of_role|>", "<|tool_call|>"), "granite"),
    (("<|start_of_role|>", "<tool_call>"), "granite4"),
    (("<|start_header_id|>", '"parameters": dictionary of argument name'), "llama3_json"),
    (("<tool_call>",), "hermes"),
)
"""Texts that all chat templates of a syntax hold, and vLLM's name for its parser."""


def syntax(chat_template: str) -> str | None:
    """The parser of a template's calls; None where it writes no known syntax."""
    fitting = (name for needles, name in SYNTAXES if all(n in chat_template for n in needles))
    return next(fitting, None)
