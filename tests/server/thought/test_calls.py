"""Answers that call functions, whatever becomes of the thought before them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.hermes import HermesParser
from ponder.engine.protocol import CallPart, Grammar, Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.answer import AnswerDelta
from ponder.thought.calls import BLOCK, CallRules
from ponder.thought.segment import AnswerRules
from server.thought.helpers import EOS, SINGLE, SPELT, Life, compiled, live, plan

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 40, "b": 2}}\n</tool_call>'
LOOK = ADD.replace("add", "look up")
RULES = AnswerRules(calls=CallRules(HermesParser))
ONE = AnswerRules(calls=CallRules(HermesParser, several=False))


def calls(life: Life) -> list[tuple[str, str]]:
    told: list[list[str]] = []
    for event in life.deltas:
        if isinstance(event, CallPart):
            if event.name is not None:
                told.append([event.name, ""])
            told[event.index][1] += event.arguments
    return [(name, arguments) for name, arguments in told]


@pytest.mark.parametrize("budget", [0, 3, 40])
@pytest.mark.parametrize("chunk_sizes", [(1,), (7,), (200,)])
def test_a_call_follows_any_thought(budget: int, chunk_sizes: tuple[int, ...]) -> None:
    def script(prompt: Sequence[int], number: int) -> object:
        closed = budget == 0 or SINGLE.END_THINK in prompt
        return iter([*SINGLE.encode(ADD if closed else f"I add.</think>\n\n{ADD}"), EOS])

    life = live(plan=plan(budget), script=script, chunk_sizes=chunk_sizes, rules=RULES)  # type: ignore[arg-type]
    assert calls(life) == [("add", '{"a": 40, "b": 2}')]
    assert (life.content, life.outcome.calls, life.outcome.finish_reason) == ("", 1, "stop")
    assert life.outcome.thinking_tokens == min(budget, len("I add."))


def test_the_marker_of_a_call_ends_the_thought_and_begins_the_call() -> None:
    life = live(f"I look.{ADD}", plan=plan(40), rules=RULES)
    assert (life.reasoning, life.content) == ("I look.", "")
    assert [name for name, _ in calls(life)] == ["add"]


def test_text_stands_before_a_call_without_its_blank() -> None:
    life = live(f"</think>\n\nI look. \n\n{ADD}\n{LOOK}\n", plan=plan(40), rules=RULES)
    assert life.content == "I look."
    assert [name for name, _ in calls(life)] == ["add", "look up"]
    assert life.outcome.calls == 2


def test_text_without_a_call_is_shown_as_it_is() -> None:
    for text in ("I look.  ", "a <tool", "b <tool_call>", "c <tool_call>no call</tool_call>"):
        life = live(f"</think>\n\n{text}", plan=plan(40), rules=RULES)
        assert (life.content, calls(life), life.outcome.calls) == (text, [], 0)


def test_a_call_that_the_allowance_cuts_is_told_as_far_as_it_came() -> None:
    life = live(f"</think>{ADD}", plan=plan(40, allowance=45, reserve=9), rules=RULES)
    (called,) = calls(life)
    assert called[0] == "add" and '{"a": 40, "b": 2}'.startswith(called[1])
    assert (life.outcome.finish_reason, life.outcome.calls) == ("length", 0)
    assert life.outcome.completion_tokens == 45


@pytest.mark.parametrize("said", ["", "Well. "])
def test_a_call_that_is_cut_before_its_name_leaves_no_markup(said: str) -> None:
    begun = '<tool_call>\n{"name"'
    for end in range(len(said) + len("<tool_call>"), len(said + begun)):
        text = f"</think>\n\n{(said + begun)[:end]}"
        life = live(
            f"{text}{'x' * 99}", plan=plan(40, allowance=12 + end, reserve=end), rules=RULES
        )
        assert (life.content, calls(life)) == (said.rstrip(), [])
        assert life.outcome.finish_reason == "length"
    stopped = AnswerRules(stop=('"name"',), calls=RULES.calls)
    life = live(f"</think>\n\n{said}{ADD}", plan=plan(40), rules=stopped)
    assert (life.content, calls(life)) == (said.rstrip(), [])


def test_an_answer_of_one_call_ends_with_it() -> None:
    life = live(f"</think>{ADD}{LOOK}{LOOK}", plan=plan(40), rules=ONE)
    assert [name for name, _ in calls(life)] == ["add"]
    assert (life.outcome.finish_reason, life.outcome.calls) == ("stop", 1)
    assert life.outcome.answer_tokens < len(ADD) + BLOCK + len("</think>")


@given(
    chunk_sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    budget=st.integers(0, 12),
    behind=st.text("ab \n{<", max_size=40),
    stop=st.sampled_from([(), ("b\n",), ("}}",)]),
)
def test_an_answer_of_one_call_is_the_same_in_all_chunks(
    chunk_sizes: list[int], budget: int, behind: str, stop: tuple[str, ...]
) -> None:
    text = f"I add.</think>\n\nHere: {ADD}{behind}{LOOK}{behind}"
    rules = AnswerRules(stop=stop, calls=ONE.calls)
    whole = live(text, plan=plan(budget, allowance=400), rules=rules, chunk_sizes=(400,))
    life = live(text, plan=plan(budget, allowance=400), rules=rules, chunk_sizes=chunk_sizes)
    assert calls(life) == calls(whole)
    assert (life.content, life.counts) == (whole.content, whole.counts)
    assert not life.content.partition("Here:")[2]


def test_a_stop_string_cuts_a_call() -> None:
    rules = AnswerRules(stop=('"b"',), calls=RULES.calls)
    life = live(f"</think>{ADD}", plan=plan(40), rules=rules)
    assert calls(life) == [("add", '{"a": 40,')]
    assert (life.outcome.finish_reason, life.outcome.calls) == ("stop", 0)


def test_special_tokens_are_spelt_for_the_parser_alone() -> None:
    vocabulary = ByteVocabulary(special=("<call>", "</call>", "<odd>"))
    spelt = {vocabulary.encode(text)[0]: text for text in ("<call>", "</call>", "<odd>")}

    class Parser(HermesParser):
        def feed(
            self, text: str, token_ids: Sequence[int], *, last: bool = False
        ) -> tuple[str, Sequence[CallPart]]:
            text = text.replace("<call>", "<tool_call>").replace("</call>", "</tool_call>")
            return super().feed(text, token_ids, last=last)

    said = ADD.replace("tool_call>", "call>")
    rules = AnswerRules(calls=CallRules(Parser, spelt))
    life = live(f"</think>Well<odd>.{said}", plan=plan(40), vocabulary=vocabulary, rules=rules)
    assert (life.content, [name for name, _ in calls(life)]) == ("Well.", ["add"])


def test_log_probabilities_are_told_of_all_tokens_of_an_answer() -> None:
    life = live(
        f"</think>I look.{ADD}",
        plan=plan(40),
        rules=RULES,
        sampling=Sampling(max_tokens=1, logprobs=0),
    )
    told = [e.token_id for d in life.deltas if isinstance(d, AnswerDelta) for e in d.logprobs]
    assert told == SINGLE.encode(f"I look.{ADD}")


def test_a_long_call_is_parsed_in_blocks() -> None:
    """Some parsers read a call anew with every piece: token by token they take seconds for one."""
    fed: list[int] = []

    class Parser(HermesParser):
        def feed(
            self, text: str, token_ids: Sequence[int], *, last: bool = False
        ) -> tuple[str, Sequence[CallPart]]:
            fed.append(len(token_ids))
            return super().feed(text, token_ids, last=last)

    said = ADD.replace("40", str(10**1599))
    rules = AnswerRules(calls=CallRules(Parser))
    life = live(f"</think>{said}", plan=plan(40, allowance=1800), rules=rules)
    assert life.outcome.calls == 1
    assert len(fed) < 60 + 1600 / BLOCK
    assert sum(fed) == len(SINGLE.encode(said))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 30), st.booleans())
def test_chunks_change_nothing(chunk_sizes: list[int], budget: int, called: bool) -> None:
    text = f"I add and I add.</think>\n\nHere: {ADD if called else 'no <tool_call>'} "
    whole = live(text, plan=plan(budget), rules=RULES, chunk_sizes=(300,))
    life = live(text, plan=plan(budget), rules=RULES, chunk_sizes=chunk_sizes)
    assert (life.content, calls(life)) == (whole.content, calls(whole))
    assert life.counts == whole.counts


# -- grammars ----------------------------------------------------------------------------------

JSON = AnswerRules(grammar=Grammar("json", '{"type": "object"}'))


@pytest.mark.parametrize("budget", [0, 3, 40])
def test_a_grammar_holds_the_answer_and_not_the_thought(budget: int) -> None:
    life = (
        live("I {add}.</think>", "{}", plan=plan(budget), rules=JSON)
        if budget
        else live("{}", plan=plan(0), rules=JSON)
    )
    grammars = [sampling.grammar for sampling in life.samplings]
    assert grammars == [None] * (budget > 0) + [JSON.grammar]
    assert life.content == "{}"
    assert life.outcome.thinking_tokens == min(budget, len("I {add}."))


@pytest.mark.parametrize("chunk", [1, 400])
def test_a_grammar_that_allows_text_beside_its_calls_hides_the_markup(chunk: int) -> None:
    rules = AnswerRules(grammar=JSON.grammar, free_text=True, calls=RULES.calls)
    texts = (
        "I add.</think>",
        "Well</think>, it is <think>no, wait</think>",
        "no, wait</think>",
        "13.",
    )
    for wished, shown in ((rules, True), (replace(rules, free_text=False), False)):
        life = live(*texts, plan=plan(40), vocabulary=SPELT, rules=wished, chunk_sizes=(chunk,))
        assert ("think>" not in life.content) == shown
        assert life.reasoning == ("I add.no, wait" if shown else "I add.")
        assert life.outcome.thinking_tokens == len(life.reasoning)
    assert [sampling.grammar for sampling in life.samplings] == [None, JSON.grammar]


@pytest.mark.parametrize("rules", [JSON, AnswerRules(grammar=JSON.grammar, calls=RULES.calls)])
def test_a_grammar_begins_behind_a_close_and_not_behind_a_call(rules: AnswerRules) -> None:
    life = live("I look.<tool_call>", "{}", plan=plan(40), rules=rules)
    close = list(compiled().close.ids)
    assert life.prompts[1][-len(close) :] == close
    assert SINGLE.TOOL_CALL not in life.prompts[1]
    outcome = life.outcome
    assert (outcome.end_cause, outcome.answer_forced) == ("natural", True)
    assert life.counts == (7, len(close), len("{}") + 2, 0)  # the marker and EOS are the answer's
    assert outcome.audited_tokens == 7


def test_what_was_said_without_a_thought_is_said_again_by_the_grammar() -> None:
    life = live("Well, 42", "{}", plan=plan(40), opened_by="model", rules=JSON)
    assert (life.content, life.reasoning) == ("{}", "")
    assert life.prompts[1] == life.prompts[0]
    assert life.counts == (0, 0, len("{}") + 1, 1)


def test_a_grammar_may_allow_nothing() -> None:
    life = live("I look.</think>", "", plan=plan(40), rules=JSON)
    assert (life.failure, life.content, life.outcome.retry_tokens) == (None, "", 0)


def test_a_marker_in_json_is_json() -> None:
    text = '{"a": "<think>"}'
    life = live("I look.</think>", text, plan=plan(40), rules=JSON)
    assert life.content == text.replace("<think>", "x")  # it is forbidden, as everywhere behind one


def test_no_room_for_an_answer_is_told_by_length() -> None:
    life = live("y" * 99, plan=plan(40, allowance=8, reserve=1), rules=JSON)
    assert (life.outcome.finish_reason, life.outcome.completion_tokens) == ("length", 8)


def test_half_a_json_is_no_less() -> None:
    life = live("</think>", json.dumps({"a": "b" * 99}), plan=plan(9, allowance=60), rules=JSON)
    assert (life.outcome.finish_reason, len(life.content)) == ("length", 59)
