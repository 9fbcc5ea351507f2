"""A model that opens another block of thought in its answer, or closes one twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.engine.protocol import FORBIDDEN, Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.answer import AnswerDelta
from ponder.thought.format import CompiledFormat, ThoughtFormat
from ponder.thought.outcome import ThoughtDelta
from ponder.thought.segment import AnswerRules
from server.thought.helpers import EOS, PROMPT, SINGLE, SPELT, Life, compiled, live, plan, tokens

examples = settings(max_examples=150, deadline=None)

CLOSE = compiled().close.ids
HARMONY = ThoughtFormat(
    name="harmony",
    start="<|channel|>analysis<|message|>",
    end="<|end|><|start|>assistant<|channel|>final<|message|>",
    again="<|end|><|start|>assistant<|channel|>analysis<|message|>",
    close_text="<|end|><|start|>assistant<|channel|>final<|message|>",
    skip_text="<|channel|>final<|message|>",
)
SPECIAL = ByteVocabulary(special=("<|channel|>", "<|message|>", "<|end|>", "<|start|>"))
FORMS = {
    "single": (SINGLE, compiled(SINGLE)),
    "spelt": (SPELT, compiled(SPELT)),
    "special": (SPECIAL, CompiledFormat.of(HARMONY, "template", SPECIAL)),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("chunk", [1, 7, 200])
def test_a_second_block_is_thought(name: str, chunk: int) -> None:
    vocabulary, form = FORMS[name]
    text = f"ab{form.end.text}c {form.start.text}de{form.end.text}f"
    life = live(text, plan=plan(50), vocabulary=vocabulary, form=form, chunk_sizes=(chunk,))
    assert (life.reasoning, life.content) == ("abde", "c f")
    kinds = [kind for kind, _ in groupby(map(type, life.deltas))]
    assert kinds == [ThoughtDelta, AnswerDelta] * 2
    outcome = life.outcome
    assert (outcome.thinking_tokens, outcome.audited_tokens, outcome.end_cause) == (4, 4, "natural")
    assert outcome.completion_tokens == len(life.engine.outputs[0])
    assert len(life.prompts) == 1


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("chunk", [1, 7, 200])
def test_a_second_block_is_closed_when_the_budget_is_spent(name: str, chunk: int) -> None:
    vocabulary, form = FORMS[name]
    said = f"ab{form.end.text}c {form.start.text}defghijkl"
    life = live(said, "42", plan=plan(5), vocabulary=vocabulary, form=form, chunk_sizes=(chunk,))
    assert life.reasoning == "abdef"
    assert life.content == f"c {form.close.shown}42"
    before = vocabulary.encode(said.partition("ghi")[0])
    assert life.prompts[1] == [*PROMPT, *before, *form.close.ids]
    outcome = life.outcome
    assert (outcome.thinking_tokens, outcome.audited_tokens, outcome.end_cause) == (5, 5, "budget")
    assert outcome.answer_forced and outcome.forced_tokens == len(form.close.ids)


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_block_that_nothing_is_left_for_is_closed_at_once(chunk: int) -> None:
    life = live("ab</think>c<think>defg", "42", plan=plan(2), chunk_sizes=(chunk,))
    assert (life.reasoning, life.content) == ("ab", "c\n\n42")
    assert life.prompts[1] == [*PROMPT, *SINGLE.encode("ab</think>c<think>"), *CLOSE]
    assert (life.outcome.thinking_tokens, life.outcome.end_cause) == (2, "budget")


@pytest.mark.parametrize("chunk", [1, 7])
def test_a_thought_that_was_not_asked_for_stays_so(chunk: int) -> None:
    said = "<think>so</think>42"
    life = live(
        said, "42", plan=plan(0), vocabulary=SPELT, form=compiled(SPELT), chunk_sizes=(chunk,)
    )
    assert (life.reasoning, life.content) == ("", "42")
    assert (life.outcome.thinking_tokens, life.outcome.end_cause) == (0, "disabled")
    assert life.outcome.forced_tokens == len(compiled(SPELT).close.ids)


@pytest.mark.parametrize("name", FORMS)
def test_a_second_close_is_not_shown(name: str) -> None:
    vocabulary, form = FORMS[name]
    end = form.end.text
    life = live(f"ab{end}so 83.{end}92{end}", plan=plan(9), vocabulary=vocabulary, form=form)
    assert (life.reasoning, life.content) == ("ab", "so 83.92")
    assert len(life.prompts) == 1


def test_a_request_for_the_answer_forbids_the_markers() -> None:
    sampling = Sampling(max_tokens=1, logit_bias={7: 2.0, SINGLE.THINK: 50.0})
    life = live("0123456789", "a</think>b<think>c", plan=plan(5), sampling=sampling)
    bias = {7: 2.0, SINGLE.THINK: FORBIDDEN, SINGLE.END_THINK: FORBIDDEN}
    assert [dict(s.logit_bias) for s in life.samplings] == [dict(sampling.logit_bias), bias]
    assert (life.reasoning, life.content) == ("01234", "axbxc")


def test_a_verbatim_answer_forbids_and_hides_nothing() -> None:
    life = live("a<think>b</think>", plan=plan(0), rules=AnswerRules(verbatim=True))
    assert life.content == "a<think>b</think>"


def test_a_skipped_thought_may_come_later() -> None:
    life = live("42 <think>ab</think>c", plan=plan(9), opened_by="model")
    assert (life.reasoning, life.content) == ("ab", "42 c")
    assert life.counts == (2, 0, 3 + 1 + 1 + 1 + 1, 0)


def test_a_block_in_the_request_for_an_answer_is_a_request_of_its_own() -> None:
    rules = AnswerRules(stop_token_ids=(ord("Z"),), min_tokens=2)
    texts = ("ab</think>", "c<think>junk", "dZe</think>f", "gZ")
    life = live(*texts, plan=plan(9), vocabulary=SPELT, rules=rules)
    assert (life.reasoning, life.content) == ("abdZe", "cg")
    assert [s.stop_token_ids for s in life.samplings] == [(), (ord("Z"),), (), (ord("Z"),)]
    assert life.outcome.completion_tokens == len("ab</think>c<think>dZe</think>gZ")


def test_the_answers_rules_mean_nothing_in_a_second_block() -> None:
    rules = AnswerRules(stop=("END",))
    life = live("ab</think>c<think>END</think>dENDe", plan=plan(9), rules=rules)
    assert (life.reasoning, life.content) == ("abEND", "cd")


@pytest.mark.parametrize("stop", ["<think>", "ink>", "c<thi"])
@pytest.mark.parametrize("vocabulary", [SINGLE, SPELT])
def test_a_users_own_stop_string_wins(stop: str, vocabulary: ByteVocabulary) -> None:
    said = "ab</think>c<think>de</think>f"
    life = live(said, plan=plan(9), vocabulary=vocabulary, rules=AnswerRules(stop=(stop,)))
    assert (life.reasoning, life.content) == ("ab", "c<think>".partition(stop)[0])


def test_max_answer_tokens_do_not_count_a_second_block() -> None:
    life = live("ab</think>c<think>dddd</think>efgh", plan=plan(9, max_answer=4))
    assert (life.reasoning, life.content) == ("abdddd", "cef")  # the start marker is the fourth


def test_a_block_at_the_end_of_the_allowance_ends_the_completion() -> None:
    room = len("ab") + 1 + len("c") + 2
    tight = plan(2, allowance=room, reserve=1)
    life = live("a</think>c<think>ddddd", "42", plan=tight)
    assert (life.content, life.outcome.finish_reason) == ("c", "length")
    assert life.outcome.completion_tokens <= room


parts = st.lists(st.text("ab \n.<", max_size=6), min_size=1, max_size=6)


def conversation(
    form: CompiledFormat, said: Sequence[str], vocabulary: ByteVocabulary
) -> list[int]:
    """Thought, answer, thought, … with the markers between them."""
    ids: list[int] = []
    for number, part in enumerate(said):
        marker = form.end.text if number % 2 == 0 else form.start.text
        ids += [*vocabulary.encode(part), *vocabulary.encode(marker)]
    return ids


def lived(name: str, said: Sequence[str], last: str, budget: int, chunks: Sequence[int]) -> Life:
    vocabulary, form = FORMS[name]
    ids = conversation(name, said)
    return live(
        script=tokens([*ids, *vocabulary.encode(last), EOS], [*b"42", EOS]),
        plan=plan(budget),
        vocabulary=vocabulary,
        form=form,
        chunk_sizes=chunks,
    )


chunkings = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@examples
@given(name=st.sampled_from(list(FORMS)), said=parts, chunks=chunkings)
def test_blocks_are_told_apart_wherever_they_are(
    name: str, said: list[str], chunks: list[int]
) -> None:
    said = said if len(said) % 2 else said[:-1]
    life = lived(name, said, "42", 99, chunks)
    thoughts, answers = said[0::2], [*said[1::2], "42"]
    assert life.reasoning == "".join(thought.lstrip("\n") for thought in thoughts)
    assert life.content == "".join(answers).lstrip()
    outcome = life.outcome
    assert outcome.thinking_tokens == outcome.audited_tokens == sum(map(len, thoughts))
    assert outcome.completion_tokens == len(life.engine.outputs[0])
    assert (outcome.end_cause, outcome.finish_reason) == ("natural", "stop")


@examples
@given(name=st.sampled_from(list(FORMS)), said=parts, budget=st.integers(0, 12), chunks=chunkings)
def test_all_blocks_together_keep_the_budget(
    name: str, said: list[str], budget: int, chunks: list[int]
) -> None:
    life = lived(name, said, "42", budget, chunks)
    outcome, form = life.outcome, FORMS[name][1]
    assert outcome.thinking_tokens <= budget
    assert outcome.audited_tokens == outcome.thinking_tokens
    assert outcome.completion_tokens <= 300
    assert outcome.forced_tokens % len(form.close.ids) == 0
    shown = life.content + life.reasoning
    for marker in (form.start, form.end):
        assert marker.text not in shown and marker.seen not in shown
    assert "analysis" not in shown and "assistant" not in shown
    shown.encode()
    one = lived(name, said, "42", budget, (1,))
    assert (one.reasoning, one.content) == (life.reasoning, life.content)
    assert one.engine.requests == life.engine.requests
