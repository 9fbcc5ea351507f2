"""What a model of every family says in its own form, read: whole, cut, reopened, closed twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import pytest

from ponder.engine.hermes import BEGIN, END, HermesParser
from ponder.engine.protocol import CallPart
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.calls import CallRules
from ponder.thought.families import FAMILIES, TAGS
from ponder.thought.format import CompiledFormat, OpenedBy, ThoughtFormat
from ponder.thought.segment import AnswerRules
from ponder.thought.text import overlap
from server.thought.helpers import Life, live, plan
from server.thought.test_calls import calls

FORMS = {form.name: form for form in (*(row.format for row in FAMILIES), TAGS)}
PLAIN = [name for name, form in FORMS.items() if not form.headers]
"""Calls in harmony's headers have tests of their own."""
SPECIAL = re.compile(r"<\|\w+\|?>|<\w+\|>|\[/?[A-Z ]+\]|</?[\w:]*think[\w:]*>|</?seed:\w+>")
CALL = ("add", '{"a": 8}')
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


class Parser(HermesParser):
    """Hermes' syntax, with a family's own marker before a call."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self._marker, self._begun = marker, ""

    def feed(
        self, text: str, token_ids: Sequence[int], *, last: bool = False
    ) -> tuple[str, Sequence[CallPart]]:
        text = (self._begun + text).replace(self._marker, BEGIN)
        begun = 0 if last else overlap(text, self._marker)
        self._begun = text[len(text) - begun :]
        return super().feed(text[: len(text) - begun], token_ids, last=last)


def marker_of(form: ThoughtFormat) -> str:
    return form.tool_call or BEGIN


def called(form: ThoughtFormat) -> str:
    return f'{marker_of(form)}{{"name": "add", "arguments": {{"a": 8}}}}{END}'


def with_tools(form: ThoughtFormat, vocabulary: ByteVocabulary) -> AnswerRules:
    marker = marker_of(form)
    ids = vocabulary.encode(marker)
    spelt = {ids[0]: marker} if len(ids) == 1 else {}
    return AnswerRules(calls=CallRules(partial(Parser, marker), spelt))


def lived(
    name: str,
    *texts: str,
    budget: int = 100,
    opened_by: OpenedBy = "template",
    chunk: int = 1,
    tools: bool = False,
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
        rules=with_tools(form, vocabulary) if tools else None,
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


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.wrapper])
@pytest.mark.parametrize("lines", ["", "\n"])
@pytest.mark.parametrize("chunk", [1, 400])
def test_nothing_is_left_of_the_block_around_an_answer(name: str, lines: str, chunk: int) -> None:
    before, after = FORMS[name].wrapper or ("", "")
    block = f"{before}{lines}{ANSWER}{lines}{after}"
    said = f"{THOUGHT}{FORMS[name].end}{lines}{block}"
    assert lived(name, said, chunk=chunk).content == ANSWER
    assert lived(name, block, budget=0, chunk=chunk).content == ANSWER
    assert lived(name, said, block, budget=3, chunk=chunk).content == ANSWER


@pytest.mark.parametrize("name", [name for name in PLAIN if FORMS[name].tool_call])
@pytest.mark.parametrize("opened_by", ["template", "model"])
@pytest.mark.parametrize("chunk", [1, 400])
def test_a_tool_call_ends_a_thought(name: str, opened_by: OpenedBy, chunk: int) -> None:
    form = FORMS[name]
    said = f"{form.start if opened_by == 'model' else ''}{THOUGHT}{called(form)}"
    life = lived(name, said, opened_by=opened_by, chunk=chunk, tools=True)
    assert (life.reasoning, life.content, calls(life)) == (THOUGHT, "", [CALL])
    assert (life.outcome.end_cause, life.outcome.calls) == ("natural", 1)
    assert life.outcome.thinking_tokens == len(THOUGHT)
    assert sums_are_exact(life)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("chunk", [1, 400])
def test_a_tool_call_follows_a_thought_cut_at_every_place(name: str, chunk: int) -> None:
    form = FORMS[name]
    said = f"{THOUGHT}{form.end}\nI add. {called(form)}"
    for budget in range(len(THOUGHT) + 2):
        texts = (said, called(form)) if budget else (called(form),)
        life = lived(name, *texts, budget=budget, chunk=chunk, tools=True)
        assert (life.reasoning, calls(life)) == (THOUGHT[:budget], [CALL])
        assert life.content == ("I add." if budget >= len(THOUGHT) else "")
        assert life.outcome.thinking_tokens == min(budget, len(THOUGHT))
        assert sums_are_exact(life)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("chunk", [1, 400])
def test_nothing_leaks_beside_a_tool_call(name: str, chunk: int) -> None:
    """A thought is opened again, and closed twice, before the call and behind it."""
    form = FORMS[name]
    again = f"{form.start}wait{form.end}{form.end}"
    said = f"{THOUGHT}{form.end}It is {again}13. {called(form)}{again}{called(form)}"
    life = lived(name, said, chunk=chunk, tools=True)
    assert (life.reasoning, life.content) == (f"{THOUGHT}waitwait", "It is 13.")
    assert calls(life) == [CALL, CALL]
    assert (life.outcome.reopens, life.outcome.closes) == (2, 2)
    assert sums_are_exact(life)


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
    between = "\n\n" if form.headers else ""  # of two messages
    assert (twice.reasoning, twice.content) == (THOUGHT, f"It is {between}13.")
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
