"""What Ponder learns of the published chat templates, fetched from the packages that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ponder.checkpoint.calls import parser
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.checkpoint.traits import HELLO, opening, tail
from ponder.engine.protocol import Tool
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.protocol.tools import described
from ponder.server.commands.proof import proved
from ponder.server.settings import BUNDLED_MODEL
from ponder.thought.budget import Ask, Limits
from ponder.thought.format import Hint
from server.checkpoint.published import ROWS, THINKING, published_templates, with_template

LIMITS = Limits(max_model_len=1 << 20)


@pytest.fixture(scope="module")
def templates() -> Mapping[str, str]:
    return published_templates()


@pytest.fixture(scope="module")
def bundled() -> HFTokenizer:
    return HFTokenizer(Path(BUNDLED_MODEL))


def learnt(tokenizer: HFTokenizer, model_type: str) -> dict[str, str]:
    """A row of the table, from the template itself."""
    checkpoint = Checkpoint.of(ModelFiles.find(BUNDLED_MODEL), tokenizer, None, model_type)
    form, traits = checkpoint.form, checkpoint.traits
    row = dict.fromkeys(("family", "own", "on", "off", "switch", "efforts", "hint"), "")
    if form is None:
        return {**row, "thinks": "no" if checkpoint.unread is None else "unread"}

    def end(arguments: Mapping[str, object]) -> str:
        return opening(form, tail(tokenizer, HELLO, arguments)[1])

    return {
        "thinks": "yes",
        "family": form.name,
        "own": traits.own,
        "on": end(traits.on),
        "off": "" if traits.off is None else end(traits.off),
        "switch": " ".join(f"{name}={value}" for name, value in (traits.off or {}).items()),
        "efforts": " ".join(dict.fromkeys(traits.efforts.values())),
        "hint": traits.tells or "",
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["template"])
def test_a_template_is_learnt_as_the_table_says(
    templates: Mapping[str, str], bundled: HFTokenizer, row: dict[str, str]
) -> None:
    tokenizer = with_template(bundled, templates[row["template"]])
    others = ("template", "model_type", "calls")
    expected = {name: value for name, value in row.items() if name not in others}
    assert learnt(tokenizer, row["model_type"]) == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["template"])
def test_a_template_tells_the_syntax_of_its_calls(
    templates: Mapping[str, str], row: dict[str, str]
) -> None:
    assert (parser(templates[row["template"]]) or "") == row["calls"]


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        ("llama.cpp/MiniMax-M2", "<minimax:tool_call>"),
        ("llama.cpp/LFM2.5-8B-A1B", "<|tool_call_start|>"),
        ("llama.cpp/tencent-Hy3", "<tool_calls:opensource>"),
        ("llama.cpp/MiniMax-M3", "]<]minimax[>[<tool_call>"),
        ("llama.cpp/deepseek-ai-DeepSeek-V4", "<｜DSML｜tool_calls>"),
        ("llama.cpp/unsloth-Apriel-1.5", "<tool_calls>"),
        ("llama.cpp/NVIDIA-Nemotron-Nano-v2", "<TOOLCALL>"),
    ],
)
def test_the_marker_of_a_call_is_the_templates_own(
    templates: Mapping[str, str], bundled: HFTokenizer, name: str, marker: str
) -> None:
    tokenizer = with_template(bundled, templates[name])
    checkpoint = Checkpoint.of(ModelFiles.find(BUNDLED_MODEL), tokenizer, None, "")
    assert checkpoint.form is not None
    assert checkpoint.form.tool_call == marker


def test_no_template_is_left_out(templates: Mapping[str, str]) -> None:
    assert {row["template"] for row in ROWS} == set(templates)


@pytest.mark.parametrize("row", THINKING, ids=lambda row: row["template"])
def test_a_prompt_opens_what_was_asked_and_closes_what_was_not(
    templates: Mapping[str, str], bundled: HFTokenizer, row: dict[str, str]
) -> None:
    """The end of the prompt, for a budget and for none; one closing marker, never two.

    The model is told its budget where its template can, and `ponder contract --check` passes.
    """
    tokenizer = with_template(bundled, templates[row["template"]])
    files = ModelFiles.find(BUNDLED_MODEL)
    checkpoint = Checkpoint.of(files, tokenizer, None, row["model_type"])
    form = checkpoint.form
    assert form is not None
    messages = [{"role": "user", "content": "What is 17 + 25 - 9?"}]
    thinking = checkpoint.prompt(messages, Ask(budget=64), LIMITS)
    assert thinking.plan.budget == 64
    assert thinking.form is not None
    assert thinking.form.opened_by == ("template" if row["on"] == "open" else "model")
    quiet = checkpoint.prompt(messages, Ask(budget=0), LIMITS)
    assert quiet.plan.budget == 0
    said = tokenizer.spell(quiet.token_ids).rpartition("9?")[2]
    assert said.count(form.end) <= 1
    opened = said.rstrip().endswith(form.start.rstrip())
    assert not opened, said
    told = checkpoint.prompt(messages, Ask(budget=517), LIMITS, hinted=True)
    assert told.hint == (Hint(517) if row["hint"] else None)
    assert ("517" in tokenizer.spell(told.token_ids)) == bool(row["hint"])
    assert [*proved(checkpoint)] == []


@pytest.mark.parametrize("name", ["trl/gptoss", "llama.cpp/openai-gpt-oss-120b"])
def test_with_tools_gpt_oss_chooses_its_answers_header(
    templates: Mapping[str, str], bundled: HFTokenizer, name: str
) -> None:
    tokenizer = with_template(bundled, templates[name])
    checkpoint = Checkpoint.of(ModelFiles.find(BUNDLED_MODEL), tokenizer, None)
    final = "<|channel|>final<|message|>"
    for calls, closed in ((False, final), (True, "")):
        thinking = checkpoint.prompt(HELLO, Ask(budget=64), LIMITS, calls=calls)
        quiet = checkpoint.prompt(HELLO, Ask(budget=0), LIMITS, calls=calls)
        said = tokenizer.spell(quiet.token_ids)
        assert said == f"{tokenizer.spell(thinking.token_ids)}{closed}"
        assert said.endswith(f"<|start|>assistant{closed}")
        assert thinking.close is not None
        assert tokenizer.spell(thinking.close.ids) == f"<|end|><|start|>assistant{closed}"


def test_a_template_that_takes_no_thought_beside_a_text_gets_the_text(
    templates: Mapping[str, str], bundled: HFTokenizer
) -> None:
    tokenizer = with_template(bundled, templates["trl/gptoss"])
    traits = Checkpoint.of(ModelFiles.find(BUNDLED_MODEL), tokenizer, None).traits
    assert traits.exclusive
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {}}}
    turn = {"role": "assistant", "reasoning_content": "I add.", "tool_calls": [call]}
    both, alone = traits.turns([{**turn, "content": "Well."}, {**turn, "content": ""}])
    assert "thinking" not in both and alone["thinking"] == "I add."
    tokenizer.render([*HELLO, both], {})


@pytest.mark.parametrize("row", [row for row in ROWS if row["calls"]], ids=lambda r: r["template"])
def test_a_tool_needs_neither_description_nor_parameters(
    templates: Mapping[str, str], bundled: HFTokenizer, row: dict[str, str]
) -> None:
    tokenizer = with_template(bundled, templates[row["template"]])
    more = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for parameters in ({}, {"type": "object"}, more):
        tool = described(
            Tool(name="add_up", parameters=parameters), empty=tokenizer.needs_descriptions
        )
        shown = "add_up" in tokenizer.render(HELLO, {"tools": [tool]})
        assert shown is tokenizer.takes_tools
