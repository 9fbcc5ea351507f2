"""Prompts: open, left to the model or closed, as the template leaves them in this request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ponder.checkpoint.chat import Prompt
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import TokenizerError
from ponder.thought.budget import Ask, Limits
from ponder.thought.contract import Contract
from ponder.thought.errors import ReasoningUnsupported
from ponder.thought.format import Hint
from server.checkpoint.conftest import Load
from server.checkpoint.test_traits import IF, UNLESS, template

LIMITS = Limits(max_model_len=2048)
HYBRID = template(UNLESS, "<think>\n{% else %}<think></think>{% endif %}")
QUIET = template(IF, "<think>\n{% else %}</think>{% endif %}")
MODEL = template("")
WORD = template(
    "{% if '/no_think' in messages[-1].content %}<think></think>{% else %}<think>\n{% endif %}"
)
REFUSES = template(UNLESS, "<think>\n{% else %}{{ raise_exception('always') }}{% endif %}")


def ask(
    checkpoint: Checkpoint, said: str = "Hi", hinted: bool = False, **ask: Any
) -> tuple[str, Prompt]:
    """What the prompt adds behind the user's turn."""
    prompt = checkpoint.prompt(
        [{"role": "user", "content": said}], Ask(**ask), LIMITS, hinted=hinted
    )
    return checkpoint.tokenizer.spell(prompt.token_ids).partition("[assistant]")[2], prompt


def test_a_hybrid_thinks_unless_it_is_told_not_to(load: Load) -> None:
    checkpoint = load(HYBRID)
    for wish in ({}, {"budget": 64}, {"budget": -1}, {"thinks": True}):
        said, prompt = ask(checkpoint, **wish)
        assert said == "<think>\n"
        assert prompt.form is not None and prompt.form.opened_by == "template"
    said, prompt = ask(checkpoint, budget=0)
    assert (said, prompt.plan.budget, prompt.plan.source) == ("<think></think>", 0, "request")


def test_a_model_that_does_not_think_by_default_does_so_when_asked(load: Load) -> None:
    checkpoint = load(QUIET)
    said, prompt = ask(checkpoint)
    assert (said, prompt.plan.budget, prompt.plan.source) == ("</think>", 0, "template")
    for wish in ({"budget": 64}, {"budget": -1}, {"thinks": True}):
        said, prompt = ask(checkpoint, **wish)
        assert said == "<think>\n"
        assert prompt.plan.budget != 0
    assert ask(checkpoint, budget=0)[0] == "</think>"


def test_the_operators_default_is_a_wish_too(load: Load) -> None:
    checkpoint = load(QUIET)
    prompt = checkpoint.prompt(
        [{"role": "user", "content": "Hi"}], Ask(), Limits(max_model_len=2048, default=50)
    )
    assert checkpoint.tokenizer.spell(prompt.token_ids).endswith("<think>\n")
    assert (prompt.plan.budget, prompt.plan.source) == (50, "default")


def test_a_word_in_a_message_that_closes_the_thought_is_heard(load: Load) -> None:
    checkpoint = load(WORD)
    said, prompt = ask(checkpoint, "Hi /no_think", budget=64)
    assert (said, prompt.plan.budget, prompt.plan.source) == ("<think></think>", 0, "template")
    said, prompt = ask(checkpoint, "Hi", budget=64)
    assert (said, prompt.plan.budget) == ("<think>\n", 64)


@pytest.mark.parametrize("said", ["<think>", "</think>", "<think></think>", "Hi <think>\n"])
def test_a_marker_that_a_user_typed_means_nothing(load: Load, said: str) -> None:
    ending, prompt = ask(load(HYBRID), said, budget=64)
    assert (ending.endswith("<think>\n"), prompt.plan.budget) == (True, 64)


IGNORES = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    "{% if not enable_thinking %}<think></think>{% endif %}"
)


@pytest.mark.parametrize("role", ["user", "tool"])
@pytest.mark.parametrize(
    "said", ["Hi", "", "</think>", "<think>", "<think></think>", "Hi <think>\n"]
)
def test_what_a_user_typed_opens_and_closes_nothing_in_a_template_that_always_ends_alike(
    load: Load, role: str, said: str
) -> None:
    """It adds the same where no generation prompt is asked for."""
    checkpoint = load(IGNORES)
    for content in (said, [{"type": "text", "text": said}]):
        turns = [{"role": "user", "content": "Hello"}, {"role": role, "content": content}]
        plain = checkpoint.prompt(turns, Ask(), LIMITS)
        assert (plain.plan.budget, plain.plan.source) == (0, "template")
        asked = checkpoint.prompt(turns, Ask(budget=64), LIMITS)
        assert asked.form is not None
        assert (asked.plan.budget, asked.form.opened_by) == (64, "model")
        assert checkpoint.prompt(turns, Ask(budget=0), LIMITS).token_ids == plain.token_ids


def test_a_template_without_its_answer_block_is_hunyuans_all_the_same(load: Load) -> None:
    """As vLLM's own example for its calls, which ends the same with any generation prompt."""
    checkpoint = load(
        "{% for m in messages %}<|startoftext|>{{ m.content }}<|extra_0|>{% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>\n{% endif %}"
    )
    assert checkpoint.form is not None
    assert (checkpoint.form.name, checkpoint.form.tool_call) == ("Hunyuan", "<tool_calls>")
    turns = [{"role": "user", "content": "<think>"}]
    for budget, end in ((64, "<|extra_0|>"), (0, "<think>\n\n</think>\n")):
        prompt = checkpoint.prompt(turns, Ask(budget=budget), LIMITS)
        assert checkpoint.tokenizer.spell(prompt.token_ids).endswith(end)
        assert prompt.plan.budget == budget


def test_half_an_end_marker_behind_the_start_closes_the_thought(load: Load) -> None:
    """Solar at a low effort: the model writes the rest, the beginning of its answer."""
    checkpoint = load(
        "{% for m in messages %}<|begin|>{{ m.role }}<|content|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}{% if reasoning_effort == 'low' %}"
        "<|begin|>assistant<|think|><|end|>{% endif %}<|begin|>assistant{% endif %}"
    )
    assert checkpoint.form is not None and checkpoint.form.name == "Solar"
    turns = [{"role": "user", "content": "Hi"}]
    for effort, budget in (("low", 0), ("medium", 1024)):
        prompt = checkpoint.prompt(turns, Ask(budget=1024, source="effort", effort=effort), LIMITS)
        assert prompt.plan.budget == budget


def test_a_template_that_refuses_is_closed_by_the_close_text(load: Load) -> None:
    checkpoint = load(REFUSES)
    said, prompt = ask(checkpoint, budget=0)
    assert said == "<think>\n\n</think>\n\n"
    assert (prompt.plan.budget, prompt.plan.source) == (0, "request")


def test_what_the_model_would_open_is_opened_to_be_closed(load: Load) -> None:
    reads = "{% if false %}<think></think>{% endif %}"
    checkpoint = load(
        "{%- for m in messages %}{% if m.reasoning is defined %}<think>{{ m.reasoning }}</think>"
        "{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
        + reads
    )
    said, prompt = ask(checkpoint, budget=64)
    assert prompt.form is not None
    assert (said, prompt.form.opened_by) == ("", "model")
    assert ask(checkpoint, budget=0)[0] == "<think>\n</think>\n\n"


def test_an_effort_reaches_the_template_beside_the_cap(load: Load) -> None:
    checkpoint = load(
        template("<think>\n", before="{{ reasoning_effort if reasoning_effort is defined }}")
    )
    prompt = checkpoint.prompt(
        [{"role": "user", "content": "Hi"}],
        Ask(budget=1024, source="effort", effort="low"),
        LIMITS,
    )
    assert checkpoint.tokenizer.decode(prompt.token_ids).startswith("low")
    assert (prompt.plan.budget, prompt.plan.source) == (1024, "effort")


def test_a_template_that_tells_the_budget_is_given_it(load: Load) -> None:
    told = "{% if thinking_budget is defined %}{{ thinking_budget }} tokens{% endif %}"
    checkpoint = load(template("<think>\n", before=told))
    for hinted in (True, False):
        prompt = checkpoint.prompt(
            [{"role": "user", "content": "Hi"}], Ask(budget=77), LIMITS, hinted=hinted
        )
        text = checkpoint.tokenizer.decode(prompt.token_ids)
        assert text.startswith("77 tokens") == hinted
        assert prompt.plan.budget == 77


def test_a_contract_names_the_argument_that_tells_the_budget(load: Load) -> None:
    told = "{% if most_tokens is defined %}{{ most_tokens }} tokens{% endif %}"
    bare = load(template("<think>\n", before=told))
    assert bare.traits.tells is None
    contract = Contract(
        think_start="<think>",
        think_end="</think>",
        close_text="</think>",
        budget_argument="most_tokens",
    )
    checkpoint = Checkpoint.of(bare.files, bare.tokenizer, contract)
    messages = [{"role": "user", "content": "Hi"}]
    prompt = checkpoint.prompt(messages, Ask(budget=77), LIMITS, hinted=True)
    assert checkpoint.tokenizer.decode(prompt.token_ids).startswith("77 tokens")
    assert prompt.hint == Hint(77)
    for wrong in ("thinking_budget", "messages"):
        with pytest.raises(TokenizerError, match=f"no budget by {wrong}: correct budget_argument"):
            Checkpoint.of(bare.files, bare.tokenizer, replace(contract, budget_argument=wrong))


def test_a_budget_for_a_thought_that_nobody_can_read_is_refused(load: Load) -> None:
    checkpoint = load(template("<thought>"))
    plan = ask(checkpoint)[1].plan
    assert (plan.budget, plan.source) == (0, "unread")
    assert checkpoint.raw_prompt("Hi", Ask(), LIMITS).plan.source == "unread"
    for wish in ({"budget": 64}, {"budget": 0}, {"thinks": True}):
        with pytest.raises(ReasoningUnsupported, match=r"'<thought'.*ponder contract MODEL"):
            ask(checkpoint, **wish)
        with pytest.raises(ReasoningUnsupported, match=r"'<thought'.*ponder contract MODEL"):
            checkpoint.raw_prompt("Hi", Ask(**wish), LIMITS)
    with pytest.raises(ReasoningUnsupported, match=r"'<thought'.*leave ponder.thinking out, or"):
        checkpoint.raw_prompt("Hi", Ask(), LIMITS, opened=True)


def test_those_who_go_on_inside_the_thought_find_it_open(load: Load) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    for text in (HYBRID, QUIET):
        checkpoint = load(text)
        assert checkpoint.tokenizer.spell(checkpoint.opened(messages)).endswith("<think>\n")


def test_those_who_go_on_inside_the_thought_may_list_tools(load: Load) -> None:
    checkpoint = load("{{ tools[0].name if tools }}" + QUIET)
    messages = [{"role": "user", "content": "Hi"}]
    listed = checkpoint.opened(messages, {"tools": [{"name": "add"}]})
    assert checkpoint.tokenizer.spell(listed).startswith("add")
    assert not checkpoint.tokenizer.spell(checkpoint.opened(messages)).startswith("add")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_an_earlier_thought_is_called_as_the_template_calls_it(load: Load, name: str) -> None:
    checkpoint = load(
        "{%- for m in messages %}{% if m.THOUGHT is defined %}<think>{{ m.THOUGHT }}</think>"
        "{% endif %}{{ m.content }}{% endfor %}".replace("THOUGHT", name)
    )
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting."},
        {"role": "user", "content": "And now?"},
    ]
    prompt = checkpoint.prompt(turns, Ask(), LIMITS)
    assert "<think>A greeting.</think>Hello." in checkpoint.tokenizer.spell(prompt.token_ids)
    assert prompt.token_ids[: len(checkpoint.encode(turns))] == checkpoint.encode(turns)


def test_a_model_without_a_template_has_raw_prompts_alone(load: Load) -> None:
    bare = load("")
    contract = Contract(think_start="<think>", think_end="</think>", close_text="\n</think>\n\n")
    checkpoint = Checkpoint.of(bare.files, bare.tokenizer, contract)
    prompt = checkpoint.raw_prompt("2 + 2? <think>", Ask(budget=9), LIMITS)
    assert prompt.plan.budget == 9
    with pytest.raises(TokenizerError, match="no chat template"):
        ask(checkpoint, budget=9)


def test_a_switch_of_the_contracts_own_name_is_a_requests_to_set(load: Load) -> None:
    bare = load(template("{% if deliberate is defined and not deliberate %}</think>{% endif %}"))
    contract = Contract(
        think_start="<think>",
        think_end="</think>",
        close_text="</think>",
        think={"deliberate": True},
        no_think={"deliberate": False},
    )
    traits = Checkpoint.of(bare.files, bare.tokenizer, contract).traits
    assert traits.switches == {"deliberate": (True, False)}
    assert (traits.on, traits.off) == ({"deliberate": True}, {"deliberate": False})
