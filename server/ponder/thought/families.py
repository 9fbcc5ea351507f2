"""Which models write which format: the table of families, and how a row is found.

A row is recognised by strings that all chat templates of its models hold. No row says what a
template does (whether it opens the thought, which arguments switch it, which efforts it takes):
`ponder.checkpoint.traits` learns that by rendering.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ponder.thought.contract import Contract, ContractError
from ponder.thought.format import ThoughtFormat


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table.

    Its models' chat templates hold all of `needles`. Where several families share a template, the
    `model_type` in config.json begins with the row's.
    """

    needles: tuple[str, ...]
    format: ThoughtFormat
    model_type: str = ""


# The sentence that Qwen's own technical report appends where a thought is stopped early
# (Qwen3, arXiv 2505.09388, section 4.3): its models were shown to go on from it.
_QWEN = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the "
    "thinking directly now.\n</think>\n\n"
)
_HARMONY_FINAL = "<|channel|>final<|message|>"

FAMILIES: tuple[Family, ...] = (
    Family(
        ("<|start|>", "<|channel|>", "analysis", "<|message|>"),
        ThoughtFormat(
            name="gpt-oss",
            start="<|channel|>analysis<|message|>",
            end=f"<|end|><|start|>assistant{_HARMONY_FINAL}",
            again="<|end|><|start|>assistant<|channel|>analysis<|message|>",
            close_text=f"<|end|><|start|>assistant{_HARMONY_FINAL}",
            source="harmony format",
            skip_text=_HARMONY_FINAL,
            tool_call="<|channel|>commentary to=functions.",
            headers=True,
            call_close="<|end|><|start|>assistant",
            efforts=("low", "medium", "high"),
        ),
    ),
    Family(
        ("to=self<|message|>", "<|eom|>"),
        ThoughtFormat(
            name="Muse Glimmer",
            start="to=self<|message|>",
            end="<|eom|><|start|>assistant to=user<|message|>",
            again="<|eom|><|start|>assistant to=self<|message|>",
            close_text="<|eom|><|start|>assistant to=user<|message|>",
            source="chat template",
            skip_text=" to=user<|message|>",
            efforts=("low", "medium", "high", "xhigh"),
        ),
    ),
    Family(
        ("<|think|>", "<|content|>", "<|begin|>assistant"),
        ThoughtFormat(
            name="Solar",
            start="<|think|>",
            end="<|end|><|begin|>assistant<|content|>",
            close_text="<|end|><|begin|>assistant<|content|>",
            source="chat template",
            skip_text="<|content|>",
        ),
    ),
    Family(
        ("<|open|>", "<|close|>", "<|sep|>", "think"),
        ThoughtFormat(
            name="Kimi-K3",
            start="<|open|>think<|sep|>",
            end="<|close|>think<|sep|>",
            close_text="<|close|>think<|sep|><|open|>response<|sep|>",
            source="chat template",
            skip_text="<|open|>response<|sep|>",
            wrapper=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
        ),
    ),
    Family(
        ("<|channel>", "<channel|>"),
        ThoughtFormat(
            name="Gemma 4",
            start="<|channel>thought\n",
            end="<channel|>",
            close_text="\n<channel|>",
            source="chat template",
            tool_call="<|tool_call>",
        ),
    ),
    Family(
        ("[THINK]", "[/THINK]"),
        ThoughtFormat(
            name="Magistral",
            start="[THINK]",
            end="[/THINK]",
            close_text="[/THINK]",
            source="chat template",
            tool_call="[TOOL_CALLS]",
        ),
    ),
    Family(
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ThoughtFormat(
            name="Command-A",
            start="<|START_THINKING|>",
            end="<|END_THINKING|>",
            close_text="<|END_THINKING|>",
            source="chat template",
            tool_call="<|START_ACTION|>",
        ),
    ),
    Family(
        ("[BEGIN FINAL RESPONSE]",),
        ThoughtFormat(
            name="Apriel",
            start="Here are my reasoning steps:\n",
            end="[BEGIN FINAL RESPONSE]",
            close_text="\n[BEGIN FINAL RESPONSE]\n",
            source="chat template",
            wrapper=("", "[END FINAL RESPONSE]"),
            tool_call="<tool_calls>",
        ),
    ),
    Family(
        ("<mm:think>", "</mm:think>"),
        ThoughtFormat(
            name="MiniMax-M3",
            start="<mm:think>",
            end="</mm:think>",
            close_text="</mm:think>",
            source="chat template",
        ),
    ),
    Family(
        ("<seed:think>",),
        ThoughtFormat(
            name="Seed-OSS",
            start="<seed:think>",
            end="</seed:think>",
            close_text="\n</seed:think>",
            tool_call="<seed:tool_call>",
        ),
    ),
    Family(
        ("<think{}>", "</think{}>", "hy_"),
        ThoughtFormat(
            name="Hunyuan 3",
            start="<think:opensource>",
            end="</think:opensource>",
            close_text="</think:opensource>",
            source="chat template",
        ),
    ),
    Family(
        ("<|startoftext|>", "<|extra_0|>", "</think>"),
        ThoughtFormat(
            name="Hunyuan",
            close_text="\n</think>\n<answer>\n",
            source="chat template",
            wrapper=("<answer>", "</answer>"),
            tool_call="<tool_calls>",
        ),
    ),
    Family(
        ("<|im_start|>", "</think>", "<response>"),
        ThoughtFormat(
            name="ERNIE",
            close_text="\n</think>\n\n<response>\n",
            source="chat template",
            wrapper=("<response>", "</response>"),
        ),
    ),
    Family(
        ("<|start_of_role|>", "<think></think>", "<response></response>"),
        ThoughtFormat(
            name="Granite",
            close_text="</think><response>",
            source="chat template",
            wrapper=("<response>", "</response>"),
            no_think={"thinking": False},
            think={"thinking": True},
        ),
    ),
    Family(
        ("[gMASK]", "<think>"),
        ThoughtFormat(name="GLM", close_text="\n</think>\n", tool_call="<tool_call>"),
    ),
    Family(("<｜Assistant｜>", "</think>"), ThoughtFormat(name="DeepSeek")),
    Family(
        ("<SPECIAL_10>", "<think>"),
        ThoughtFormat(name="Nemotron Nano 2", tool_call="<TOOLCALL>"),
    ),
    Family(
        ("truncate_history_thinking", "<think>"),
        ThoughtFormat(name="Nemotron 3", tool_call="<tool_call>"),
    ),
    Family(
        ("<|start_header_id|>", "<think>"),
        ThoughtFormat(name="Llama-Nemotron", tool_call="<TOOLCALL>"),
    ),
    Family(("<|im_sep|>", "<think>"), ThoughtFormat(name="Phi-4-reasoning")),
    Family(
        ("[|assistant|]", "<thought>"),
        ThoughtFormat(
            name="EXAONE Deep", start="<thought>", end="</thought>", close_text="\n</thought>\n\n"
        ),
    ),
    Family(
        ("Here is my thought process:", "Here is my response:"),
        ThoughtFormat(
            name="Granite 3.2",
            start="Here is my thought process:",
            end="Here is my response:",
            close_text="\n\nHere is my response:\n\n",
            source="chat template",
            think={"thinking": True},
            no_think={"thinking": False},
        ),
    ),
    Family(
        ("<|im_assistant|>", "<think>"),
        ThoughtFormat(
            name="Kimi-K2-Thinking",
            close_text="</think>",
            source="chat template",
            tool_call="<|tool_calls_section_begin|>",
        ),
    ),
    Family(
        ("You are MiMo",),
        ThoughtFormat(name="MiMo", tool_call="<tool_call>"),
    ),
    Family(("MiniMax-M1 model",), ThoughtFormat(name="MiniMax-M1", tool_call="<tool_calls>")),
    Family(
        ("<|im_start|>", "</think>"),
        ThoughtFormat(
            name="Qwen3",
            close_text=_QWEN,
            source="Qwen3 report, section 4.3",
            tool_call="<tool_call>",
        ),
        model_type="qwen",
    ),
)

TAGS = ThoughtFormat(name="think tags", tool_call="<tool_call>")
"""The format of all other models whose chat template writes `<think>` itself."""

MARKERS = (
    "<think",
    "<thought",
    "<reasoning>",
    "<scratchpad>",
    "<longcat_think>",
    "<ifm|think>",
    "<|think|>",
    "<|thinking",
    "<|content_thinking|>",
    "<|plamo:begin_think",
    "<|begin_of_thought|>",
    "<|start_of_thought|>",
    "[THINK]",
    "◁think▷",
    "THINKING|>",
    "reasoning_content",
)
"""Strings that only the chat templates of models that think hold, comments aside."""
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


def recognise(chat_template: str, model_type: str = "") -> Family | None:
    """The first row that fits; None if none does."""
    fitting = (
        row
        for row in FAMILIES
        if model_type.startswith(row.model_type) and all(n in chat_template for n in row.needles)
    )
    return next(fitting, None)


def unread(chat_template: str) -> str | None:
    """The first marker of a thought that a template holds; None without one."""
    written = _COMMENT.sub("", chat_template)
    return next((marker for marker in MARKERS if marker in written), None)


def of_contract(contract: Contract) -> ThoughtFormat:
    """The format that a contract gives; the row of its family fills in the rest.

    Raises `ContractError` for a family that the table does not have.
    """
    row = ThoughtFormat(name="")
    if contract.family is not None:
        known = {form.name: form for form in (*(family.format for family in FAMILIES), TAGS)}
        if contract.family not in known:
            raise ContractError(f"family {contract.family!r} is none of {', '.join(known)}")
        row = known[contract.family]
    own = ("again", "skip_text", "wrapper", "tool_call", "think", "no_think")
    given = {name: getattr(contract, name) for name in own}
    return replace(
        row,
        **{name: value for name, value in given.items() if value is not None},
        name=f"contract ({contract.method})",
        start=contract.think_start,
        end=contract.think_end,
        close_text=contract.close_text,
        source="ponder.json",
        answer_prefix=contract.answer_prefix,
        opens=contract.opened_by == "template",
        tells=contract.budget_argument,
        hint=contract.budget_hint,
        trained_budgets=contract.trained_budgets,
    )
