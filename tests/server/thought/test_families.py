"""What a model of every family says in its own form, read: whole, cut, reopened, closed twice."""

from __future__ import annotations

import re

import pytest

from ponder.engine.scripted import ByteVocabulary
from ponder.thought.families import FAMILIES, TAGS
from ponder.thought.format import CompiledFormat, OpenedBy, ThoughtFormat
from server.thought.helpers import Life, live, plan

FORMS = {form.name: form for form in (*(row.format for row in FAMILIES), TAGS)}
SPECIAL = re.compile(r"<\|\w+\|?>|<\w+\|>|\[/?[A-Z ]+\]|</?[\w:]*think[\w:]*>|</?seed:\w+>")
THOUGHT, ANSWER = "I add 8 and 5.\nThat is 13.", "It is 13."


def vocabulary_of(form: ThoughtFormat) -> ByteVocabulary:
    """One that has what looks like a special token in this form's markers as one."""
    texts = (form.start, form.end, form.again, form.skip_text, form.tool_call, form.close_text)
    special = dict.fromkeys(found for text in texts if text for found in SPECIAL.findall(text))
    longest_first = sorted(special, key=len, reverse=True)
    return ByteVocabulary(single_token_markers=False, special=longest_first)


def answered(form: ThoughtFormat) -> str:
    before, after = form.wrapper or ("", "")
    return f"{before}{ANSWER}{after}"


def lived(
    name: str, *texts: str, budget: int = 100, opened_by: OpenedBy = "template", chunk: int = 1
) -> Life:
    form = FORMS[name]
    vocabulary = vocabulary_of(form)
    compiled = CompiledFormat.of(form, opened_by, vocabulary)
    return live(
        *texts,
        plan=plan(budget, allowance=600),
        vocabulary=vocabulary,
        form=compiled,
        chunk_sizes=(chunk,),
    )


def sums_are_exact(life: Life) -> bool:
    outcome = life.outcome
    parts = (
        outcome.thinking_tokens,
        outcome.forced_tokens,
        outcome.answer_tokens,
        outcome.retry_tokens,
    )
    return outcome.completion_tokens == sum(parts) and (
        outcome.audited_tokens == outcome.thinking_tokens
    )


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("opened_by", ["template", "model"])
@pytest.mark.parametrize("chunk", [1, 400])
def test_a_thought_that_ends_by_itself(name: str, opened_by: OpenedBy, chunk: int) -> None:
    form = FORMS[name]
    start = form.start if opened_by == "model" else ""
    said = f"{start}{THOUGHT}{form.end}\n{answered(form)}"
    life = lived(name, said, opened_by=opened_by, chunk=chunk)
    assert (life.reasoning, life.content.strip()) == (THOUGHT, ANSWER)
    assert (life.outcome.end_cause, life.outcome.thinking_tokens) == ("natural", len(THOUGHT))
    assert sums_are_exact(life)


@pytest.mark.parametrize("name", FORMS)
def test_a_thought_cut_at_every_place(name: str) -> None:
    """Also where half of the end marker was sampled: none of it is thought, shown or counted."""
    form = FORMS[name]
    said = f"{THOUGHT}{form.end}\n{answered(form)}"
    for budget in range(1, len(THOUGHT) + 4):
        life = lived(name, said, answered(form), budget=budget)
        cut = budget < len(THOUGHT)
        assert life.reasoning == THOUGHT[:budget]
        assert life.content.strip() == ANSWER
        assert life.outcome.end_cause == ("budget" if cut else "natural")
        assert life.outcome.thinking_tokens == min(budget, len(THOUGHT))
        assert sums_are_exact(life)


@pytest.mark.parametrize("name", FORMS)
def test_no_thought(name: str) -> None:
    life = lived(name, answered(FORMS[name]), budget=0)
    assert (life.reasoning, life.content.strip()) == ("", ANSWER)
    assert (life.outcome.end_cause, life.outcome.thinking_tokens) == ("disabled", 0)


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.tool_call])
def test_a_tool_call_ends_a_thought(name: str) -> None:
    form = FORMS[name]
    life = lived(name, f"{THOUGHT}{form.tool_call}call")
    assert life.reasoning == THOUGHT
    assert life.content.endswith("call")
    assert life.outcome.end_cause == "natural"


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("chunk", [1, 400])
def test_nothing_leaks_after_a_close(name: str, chunk: int) -> None:
    """A second block is thought, a second close is nothing."""
    form = FORMS[name]
    reopened = f"{THOUGHT}{form.end}It is {form.start}wait{form.end}13."
    life = lived(name, reopened, chunk=chunk)
    assert (life.reasoning, life.content) == (f"{THOUGHT}wait", "It is 13.")
    assert life.outcome.thinking_tokens == len(THOUGHT) + 4
    assert (life.outcome.reopens, life.outcome.closes) == (1, 0)
    assert sums_are_exact(life)
    twice = lived(name, f"{THOUGHT}{form.end}It is {form.end}13.", chunk=chunk)
    assert (twice.reasoning, twice.content) == (THOUGHT, "It is 13.")
    assert (twice.outcome.reopens, twice.outcome.closes) == (0, 1)
    assert sums_are_exact(twice)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("chunk", [1, 400])
def test_a_second_block_has_what_the_first_left(name: str, chunk: int) -> None:
    form = FORMS[name]
    said = f"{THOUGHT}{form.end}It is {form.start}wait, I add again{form.end}13."
    life = lived(name, said, answered(form), budget=len(THOUGHT) + 4, chunk=chunk)
    assert life.reasoning == f"{THOUGHT}wait"
    assert life.outcome.thinking_tokens == len(THOUGHT) + 4
    assert life.outcome.end_cause == "budget"
    assert not any(marker.strip() in life.content for marker in (form.start, form.end))
    assert sums_are_exact(life)
