"""gpt-oss: messages whose headers say what they are, in every spelling of a header."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.engine.harmony_calls import Harmony, HarmonyParser
from ponder.engine.protocol import CALL, CallPart, EngineSetupError, Sampling, Tool
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Plan
from ponder.thought.calls import CallRules
from ponder.thought.families import FAMILIES
from ponder.thought.format import CompiledFormat
from ponder.thought.harmony import ANSWER, THOUGHT, Headers
from ponder.thought.segment import AnswerRules
from server.thought.helpers import PROMPT, Life, live, plan, tokens

NAMES = ("channel", "message", "end", "start", "constrain")
VOCABULARY = ByteVocabulary(special=[f"<|{name}|>" for name in NAMES])
FORM = next(row.format for row in FAMILIES if row.format.name == "gpt-oss")
CALLS = CallRules(HarmonyParser)
ADD = Tool(name="add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
GRAMMAR = Harmony(VOCABULARY).grammar([ADD], required=False, several=True)
NEXT = "<|end|><|start|>assistant"
FINAL = f"{NEXT}<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
COMMENTARY = "<|channel|>commentary<|message|>"
CLOSE = VOCABULARY.encode(FORM.close_text)
CALL_CLOSE = VOCABULARY.encode(FORM.call_close or "")
CALL_HEADERS = [
    "<|channel|>commentary to=functions.add <|constrain|>json<|message|>",
    "<|channel|>commentary to=functions.add<|message|>",
    " to=functions.add<|channel|>commentary json<|message|>",
    " to=functions.add<|channel|>commentary <|constrain|>json<|message|>",
    " to=functions.add<|channel|>analysis json<|message|>",
]
ANSWER_HEADERS = [
    "<|channel|>final<|message|>",
    "<|channel|>final <|constrain|>json<|message|>",
    "<|channel|>final json<|message|>",
    COMMENTARY,
]
THOUGHT_HEADERS = [ANALYSIS, "<|channel|>analysis to=python code<|message|>"]
HALVES = ["<|end|>", "<|end|><|start|>", "<|end|><|start|>assist", NEXT, f"{NEXT}<|channel|>fin"]


def harmony(
    *texts: str,
    plan: Plan,
    chunk: int = 1,
    opened_by: Literal["template", "model"] = "model",
    rules: AnswerRules | None = None,
    calls: bool = False,
    sampling: Sampling | None = None,
) -> Life:
    form = CompiledFormat.of(FORM, opened_by, VOCABULARY)
    if rules is None or rules.calls is None:
        form = form.without_calls()
    return live(
        *texts,
        plan=plan,
        vocabulary=VOCABULARY,
        form=form,
        chunk_sizes=(chunk,),
        rules=rules,
        close=form.call_close if calls else None,
        sampling=sampling,
    )


def calls_of(life: Life) -> list[tuple[str | None, str]]:
    parts = [delta for delta in life.deltas if isinstance(delta, CallPart)]
    return [
        (part.name, "".join(p.arguments for p in parts if p.index == part.index))
        for part in parts
        if part.name
    ]


@pytest.mark.parametrize(
    ("headers", "stands_for"),
    [(ANSWER_HEADERS, ANSWER), (THOUGHT_HEADERS, THOUGHT), (CALL_HEADERS, CALL + "add\n")],
)
def test_a_header_is_one_piece_in_every_spelling(headers: list[str], stands_for: str) -> None:
    for header in headers:
        decoder = Headers(VOCABULARY).decoder(VOCABULARY)
        ids = VOCABULARY.encode(f"\n\n{header}cd")
        assert "".join(map(decoder.feed, ids)).lstrip() == f"{stands_for}cd"
        decoder = Headers(VOCABULARY).decoder(VOCABULARY)
        ids = VOCABULARY.encode(f"ab{NEXT}{header}cd")
        assert "".join(map(decoder.feed, ids)) == f"ab{stands_for}cd"


@pytest.mark.parametrize("chunk", [1, 5, 99])
def test_two_thoughts_and_a_preamble(chunk: int) -> None:
    said = f"{ANALYSIS}I add.{NEXT}{ANALYSIS}So.{NEXT}{COMMENTARY}Well. {FINAL}42"
    life = harmony(said, plan=plan(99), chunk=chunk)
    assert (life.reasoning, life.content) == ("I add.So.", "Well. \n\n42")
    outcome = life.outcome
    assert (outcome.thinking_tokens, outcome.audited_tokens) == (9, 9)
    assert outcome.completion_tokens == len(life.engine.outputs[0])
    assert outcome.end_cause == "natural"


@pytest.mark.parametrize("chunk", [1, 5, 99])
@pytest.mark.parametrize("budget", range(1, 12))
def test_headers_belong_to_no_budget(budget: int, chunk: int) -> None:
    said = f"{ANALYSIS}I add.{NEXT}{ANALYSIS}So.{FINAL}42"
    life = harmony(said, "42", plan=plan(budget), chunk=chunk)
    assert life.outcome.thinking_tokens == life.outcome.audited_tokens == min(budget, 9)
    assert (life.reasoning, life.content) == ("I add.So."[:budget], "42")
    assert (life.outcome.end_cause == "natural") is (budget >= 9)
    if budget < 9:
        between = f"{NEXT}{ANALYSIS}" if budget > 6 else ""
        before = f"{ANALYSIS}{'I add.'[:budget]}{between}{'So.'[: max(0, budget - 6)]}"
        assert life.prompts[1] == [*PROMPT, *VOCABULARY.encode(before), *CLOSE]


@pytest.mark.parametrize("header", ANSWER_HEADERS)
def test_every_header_of_an_answer_ends_the_thought(header: str) -> None:
    life = harmony(f"{ANALYSIS}ab{NEXT}{header}42", plan=plan(9))
    assert (life.reasoning, life.content, life.outcome.thinking_tokens) == ("ab", "42", 2)
    skipped = harmony(f"{header}42", plan=plan(9))
    assert (skipped.reasoning, skipped.content) == ("", "42")


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_half_a_header_is_dropped_at_the_end_of_the_request(half: str, chunk: int) -> None:
    life = harmony(f"{ANALYSIS}ab{half}", "42", plan=plan(99), chunk=chunk)
    assert (life.reasoning, life.content) == ("ab", "42")
    assert life.prompts[1] == [*PROMPT, *VOCABULARY.encode(f"{ANALYSIS}ab"), *CLOSE]
    answered = harmony(f"{ANALYSIS}ab{FINAL}42{half}", plan=plan(99), chunk=chunk)
    assert answered.content == "42"


def test_a_thought_alone_is_closed_and_answered() -> None:
    life = harmony(f"{ANALYSIS}ab", "42", plan=plan(99))
    assert (life.reasoning, life.content, life.outcome.end_cause) == ("ab", "42", "natural")


def test_a_thought_in_the_answer_is_a_thought() -> None:
    life = harmony(f"{ANALYSIS}ab{FINAL}c{NEXT}{ANALYSIS}d{FINAL}e", plan=plan(99))
    assert (life.reasoning, life.content, life.outcome.thinking_tokens) == ("abd", "ce", 3)


def test_a_message_to_a_built_in_tool_is_a_thought() -> None:
    life = harmony(f"{ANALYSIS}ab{NEXT}{THOUGHT_HEADERS[1]}1+1{FINAL}2", plan=plan(99))
    assert (life.reasoning, life.content) == ("ab1+1", "2")


def test_a_header_in_plain_characters_ends_nothing() -> None:
    said = [*VOCABULARY.encode(f"{ANALYSIS}a"), *FINAL.encode(), *VOCABULARY.encode(FINAL), *b"42"]
    form = CompiledFormat.of(FORM, "model", VOCABULARY)
    life = live(
        script=tokens([*said, VOCABULARY.EOS]),
        plan=plan(200),
        vocabulary=VOCABULARY,
        form=form,
    )
    assert (life.reasoning, life.content) == (f"a{FINAL}", "42")


@pytest.mark.parametrize("header", CALL_HEADERS)
@pytest.mark.parametrize("chunk", [1, 3, 99])
def test_a_call_is_read_in_the_answer(header: str, chunk: int) -> None:
    said = f'{ANALYSIS}ab{NEXT}{COMMENTARY}Let me see.{NEXT}{header}{{"a": 1}}'
    life = harmony(said, plan=plan(99), chunk=chunk, rules=AnswerRules(calls=CALLS))
    assert (life.reasoning, life.content) == ("ab", "Let me see.")
    assert calls_of(life) == [("add", '{"a": 1}')]
    assert life.outcome.calls == 1


@pytest.mark.parametrize("header", CALL_HEADERS)
def test_a_call_ends_the_thought(header: str) -> None:
    said = f'{ANALYSIS}ab{NEXT}{header}{{"a": 1}}'
    life = harmony(said, plan=plan(99), rules=AnswerRules(calls=CALLS))
    assert (life.reasoning, calls_of(life)) == ("ab", [("add", '{"a": 1}')])
    assert life.outcome.thinking_tokens == 2


@pytest.mark.parametrize("header", CALL_HEADERS)
@pytest.mark.parametrize("budget", [1, 2, 99])
def test_with_tools_the_answer_begins_with_its_header(header: str, budget: int) -> None:
    """Under a grammar, which says what the header may be, whether or not the thought was cut."""
    rules = AnswerRules(calls=CALLS, grammar=GRAMMAR, free_text=True)
    said, called = f"{ANALYSIS}ab{FINAL}no call", f'{CALL_HEADERS[0]}{{"a": 1}}'
    life = harmony(said, called, plan=plan(budget), rules=rules, calls=True)
    assert (life.reasoning, life.content) == ("ab"[:budget], "")
    assert calls_of(life) == [("add", '{"a": 1}')]
    thought = VOCABULARY.encode(f"{ANALYSIS}{'ab'[:budget]}")
    assert life.prompts[1] == [*PROMPT, *thought, *CALL_CLOSE]
    assert [s.grammar for s in life.samplings] == [None, GRAMMAR]


def test_an_answer_without_a_thought_gets_its_header_before_a_grammar() -> None:
    rules = AnswerRules(grammar=GRAMMAR)
    life = harmony("<|channel|>final<|message|>{}", "{}", plan=plan(9), rules=rules)
    assert life.prompts[1] == [*PROMPT, *VOCABULARY.encode("<|channel|>final<|message|>")]
    assert life.content == "{}"
    called = harmony(
        "<|channel|>final<|message|>{}",
        "<|channel|>final<|message|>{}",
        plan=plan(9),
        rules=AnswerRules(calls=CALLS, grammar=GRAMMAR),
        calls=True,
    )
    assert (called.prompts[1], called.content) == ([*PROMPT], "{}")


def test_an_empty_answer_is_asked_for_again_behind_its_header() -> None:
    rules = AnswerRules(calls=CALLS, grammar=GRAMMAR, free_text=True)
    header = "<|channel|>final<|message|>"
    life = harmony(f"{ANALYSIS}ab{FINAL}", header, "42", plan=plan(9), rules=rules, calls=True)
    assert (life.reasoning, life.content) == ("ab", "42")
    assert life.prompts[2] == [*life.prompts[1], *VOCABULARY.encode(header)]
    assert [s.grammar for s in life.samplings] == [None, GRAMMAR, None]


@pytest.mark.parametrize("header", CALL_HEADERS)
@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_a_call_that_nobody_asked_for_is_a_thought(header: str, chunk: int) -> None:
    life = harmony(f'{ANALYSIS}ab{NEXT}{header}{{"a": 1}}', "42", plan=plan(99), chunk=chunk)
    assert (life.reasoning, life.content) == ('ab{"a": 1}', "42")
    assert life.outcome.thinking_tokens == 10
    said = f'{COMMENTARY}Well.{NEXT}{header}{{"a": 1}}'
    for budget in (0, 9):
        answered = harmony(said, "42", plan=plan(budget), chunk=chunk)
        assert answered.content.startswith("Well.")
        assert "a" not in answered.content and "functions" not in answered.content


@pytest.mark.parametrize("header", CALL_HEADERS)
@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_a_call_may_come_first(header: str, chunk: int) -> None:
    said = f'{header}{{"a": 1}}'
    life = harmony(said, plan=plan(99), chunk=chunk, rules=AnswerRules(calls=CALLS))
    assert (life.reasoning, life.content, calls_of(life)) == ("", "", [("add", '{"a": 1}')])


@pytest.mark.parametrize("chunk", [1, 4, 99])
@pytest.mark.parametrize("text", ["to be or not", " to", "total = 4", "so to=functions.add"])
def test_an_answer_may_begin_like_a_recipient(text: str, chunk: int) -> None:
    life = harmony(f"{ANALYSIS}ab{FINAL}{text}", plan=plan(99), chunk=chunk)
    assert life.content == text.lstrip()
    assert harmony(text, plan=plan(99), chunk=chunk).content == text.lstrip()


@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_a_header_in_plain_characters_calls_nothing(chunk: int) -> None:
    text = f"Harmony: {CALL_HEADERS[0]}{{}} ends with <|message|>."
    said = [*VOCABULARY.encode(f"{ANALYSIS}ab{FINAL}"), *text.encode(), VOCABULARY.EOS]
    life = live(
        script=tokens(said),
        plan=plan(200),
        vocabulary=VOCABULARY,
        form=CompiledFormat.of(FORM, "model", VOCABULARY),
        chunk_sizes=(chunk,),
        rules=AnswerRules(calls=CALLS),
    )
    assert (life.content, calls_of(life)) == (text, [])


@pytest.mark.parametrize("chunk", [1, 7, 99])
def test_what_never_becomes_a_header_is_text(chunk: int) -> None:
    body = "more and more text that no message marker follows, " * 3
    life = harmony(f"{ANALYSIS}ab<|end|>{body}{FINAL}42", plan=plan(200), chunk=chunk)
    assert (life.reasoning, life.content) == (f"ab{body}", "42")
    answered = harmony(f"{ANALYSIS}ab{FINAL}42<|end|>{body}", plan=plan(200), chunk=chunk)
    assert answered.content == f"42{body}"
    outcome = answered.outcome
    assert outcome.completion_tokens == len(answered.engine.outputs[0])


def test_a_thought_again_behind_a_retry_is_closed_under_the_grammar() -> None:
    rules = AnswerRules(calls=CALLS, grammar=GRAMMAR, free_text=True)
    header = "<|channel|>final<|message|>"
    again = f"{NEXT}{ANALYSIS}more"
    texts = (f"{ANALYSIS}ab{FINAL}", header, again, f"{header}42")
    life = harmony(*texts, plan=plan(2), rules=rules, calls=True)
    assert (life.reasoning, life.content) == ("ab", "42")
    assert [s.grammar for s in life.samplings] == [None, GRAMMAR, None, None, GRAMMAR]


def test_half_a_header_has_no_logprobs() -> None:
    sampling = Sampling(max_tokens=1, logprobs=1)
    life = harmony(f"{ANALYSIS}ab{FINAL}42{NEXT}<|channel|>fin", plan=plan(9), sampling=sampling)
    told = [
        one for delta in life.deltas if isinstance(delta, AnswerDelta) for one in delta.logprobs
    ]
    assert [one.token_id for one in told][:2] == list(b"42")
    assert not set(VOCABULARY.encode(NEXT)) & {one.token_id for one in told}


def test_a_grammar_allows_an_answer_only_where_no_call_is_required() -> None:
    channel = VOCABULARY.encode("<|channel|>")[0]
    form = json.loads(GRAMMAR.rule)["format"]
    optional, either = form["elements"]
    required = json.loads(Harmony(VOCABULARY).grammar([ADD], required=True, several=True).rule)
    for found, texts in (
        (either, ["commentary to=functions.add ", "final"]),
        (required["format"], ["commentary to=functions.add "]),
    ):
        headers = [one["elements"][0] for one in found["elements"]]
        assert [header["content"]["value"] for header in headers] == texts
        assert all(header["begin"]["token"] == channel for header in headers)
    assert optional["type"] == "optional"


def test_a_model_without_the_special_tokens_is_refused() -> None:
    with pytest.raises(EngineSetupError, match="gpt-oss's"):
        Harmony(ByteVocabulary())


@dataclass(frozen=True)
class Turn:
    text: str
    reasoning: str
    content: str


bodies = st.text("abc <|é", min_size=1, max_size=8)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    thoughts = draw(st.lists(bodies, min_size=1, max_size=4))
    answers = draw(st.lists(bodies.map(lambda s: f"x{s}"), min_size=1, max_size=3))
    headers = [draw(st.sampled_from(ANSWER_HEADERS)) for _ in answers]
    said = NEXT.join(f"{ANALYSIS}{text}" for text in thoughts)
    said += "".join(f"{NEXT}{h}{text}" for h, text in zip(headers, answers, strict=True))
    return Turn(said, "".join(thoughts), "\n\n".join(answers))


@settings(max_examples=200, deadline=None)
@given(turns(), st.integers(1, 60), st.sampled_from([1, 2, 7, 99]))
def test_no_header_is_shown_and_no_budget_is_broken(turn: Turn, budget: int, chunk: int) -> None:
    life = harmony(turn.text, "x", plan=plan(budget), chunk=chunk)
    thought = turn.reasoning.encode()
    outcome = life.outcome
    assert outcome.thinking_tokens == outcome.audited_tokens <= budget
    if outcome.end_cause == "natural":
        assert (life.reasoning, life.content) == (turn.reasoning, turn.content)
        assert outcome.thinking_tokens == len(thought)
        assert outcome.completion_tokens == len(life.engine.outputs[0])
    else:
        assert len(thought) > budget
        assert (thought.startswith(life.reasoning.encode()), life.content) == (True, "x")
