"""Families whose templates no package has: small ones of our own, with what is known of theirs.

They end their prompts and write earlier turns as the published ones are described to do.
"""

from __future__ import annotations

import pytest

from ponder.thought.budget import Ask, Limits
from server.checkpoint.conftest import Load
from server.checkpoint.test_real_templates import learnt

CHATML = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}"
    "<|im_end|>\n{% endfor -%}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
OLMO = CHATML + "<think>{% endif %}"
ERNIE = (
    "<|im_start|>system\n<global_setting>\nthink_mode=True\n</global_setting><|im_end|>\n"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<response>\n{{ m.content.split('</think>')[-1] }}\n</response>\n"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor -%}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
LLAMA_NEMOTRON = (
    "{%- for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content.split('</think>')[-1] }}<|eot_id|>{% endfor -%}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    "{% if '/no_think' in messages[0].content %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
EXAONE_DEEP = (
    "{%- for m in messages %}[|{{ m.role }}|]{{ m.content.split('</thought>')[-1] }}"
    "[|endofturn|]\n{% endfor -%}{% if add_generation_prompt %}[|assistant|]<thought>\n{% endif %}"
)
GRANITE_3_2 = (
    "{%- if thinking is defined and thinking %}<|start_of_role|>system<|end_of_role|>Write your "
    "thoughts after 'Here is my thought process:' and your answer after 'Here is my response:'."
    "<|end_of_text|>\n{% endif -%}"
    "{%- for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}"
    "<|end_of_text|>\n{% endfor -%}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
TEMPLATES = {
    "think tags": (OLMO, "open", "open", None),
    "ERNIE": (ERNIE, "open", "open", None),
    "Llama-Nemotron": (LLAMA_NEMOTRON, "model", "model", None),
    "EXAONE Deep": (EXAONE_DEEP, "open", "open", None),
    "Granite 3.2": (GRANITE_3_2, "model", "model", "model"),
}
"""By family: a template, and how its prompts end when nothing is asked, for a thought and none."""


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_family_is_learnt(load: Load, family: str) -> None:
    text, own, on, off = TEMPLATES[family]
    found = learnt(load(text).tokenizer, "olmo3")
    assert (found["family"], found["own"], found["on"]) == (family, own, on)
    assert (found["off"], found["switch"]) == (off or "", "thinking=False" if off else "")


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_budget_of_0_closes_what_the_template_leaves(load: Load, family: str) -> None:
    text, _, on, off = TEMPLATES[family]
    checkpoint, messages = load(text), [{"role": "user", "content": "2 + 2?"}]
    form, limits = checkpoint.form, Limits(max_model_len=2048)
    assert form is not None
    thinking = checkpoint.prompt(messages, Ask(budget=64), limits)
    quiet = checkpoint.prompt(messages, Ask(budget=0), limits)
    assert (thinking.plan.budget, quiet.plan.budget) == (64, 0)
    said = checkpoint.tokenizer.spell(quiet.token_ids).rpartition("2 + 2?")[2]
    if off is None:
        start = "" if on == "open" else form.start
        assert quiet.token_ids[: len(thinking.token_ids)] == thinking.token_ids
        assert said.endswith(f"{start}{form.close_text}")
    assert said.count(form.end) == (off is None)


def test_a_word_of_the_system_prompt_closes_a_thought(load: Load) -> None:
    checkpoint = load(LLAMA_NEMOTRON)
    messages = [{"role": "system", "content": "/no_think"}, {"role": "user", "content": "2 + 2?"}]
    prompt = checkpoint.prompt(messages, Ask(budget=64), Limits(max_model_len=2048))
    assert (prompt.plan.budget, prompt.plan.source) == (0, "template")
