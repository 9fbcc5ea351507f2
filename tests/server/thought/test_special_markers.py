"""Markers of several tokens, special ones among them: special tokens have no text."""

from __future__ import annotations

from typing import Literal

import pytest

from ponder.engine.protocol import Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.budget import Plan
from ponder.thought.families import FAMILIES
from ponder.thought.format import CompiledFormat, ThoughtFormat
from server.thought.helpers import EOS, HARMONY, PROMPT, SPECIAL, Life, live, plan, tokens

GEMMA = ThoughtFormat(
    name="gemma",
    start="<|channel>thought\n",
    end="<channel|>",
    close_text="\n<channel|>",
    tool_call="<|tool_call>",
)
GEMMAS = ByteVocabulary(special=("<|channel>", "<channel|>", "<|tool_call>"))
KIMI = ThoughtFormat(
    name="kimi",
    start="<|open|>think<|sep|>",
    end="<|close|>think<|sep|><|open|>response<|sep|>",
    close_text="<|close|>think<|sep|><|open|>response<|sep|>",
    wrapper=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
)
KIMIS = ByteVocabulary(special=("<|open|>", "<|close|>", "<|sep|>"))
CLOSE = SPECIAL.encode(HARMONY.close_text)


def harmony(
    *texts: str,
    plan: Plan,
    chunk: int = 1,
    opened_by: Literal["template", "model"] = "template",
    sampling: Sampling | None = None,
) -> Life:
    form = CompiledFormat.of(HARMONY, opened_by, SPECIAL)
    return live(
        *texts, plan=plan, vocabulary=SPECIAL, form=form, chunk_sizes=(chunk,), sampling=sampling
    )


@pytest.mark.parametrize("chunk", [1, 5, 99])
def test_a_thought_of_several_messages(chunk: int) -> None:
    said = f"I add.{HARMONY.again} So.{HARMONY.end}42"
    life = harmony(said, plan=plan(99), chunk=chunk)
    assert (life.reasoning, life.content) == ("I add. So.", "42")
    assert life.outcome.thinking_tokens == life.outcome.audited_tokens == 6 + 4
    assert life.outcome.completion_tokens == len(life.engine.outputs[0])


@pytest.mark.parametrize("chunk", [1, 5, 99])
@pytest.mark.parametrize("budget", range(1, 60))
def test_a_cut_falls_in_front_of_half_a_marker(budget: int, chunk: int) -> None:
    said = f"I add.{HARMONY.again} So.{HARMONY.end}42"
    life = harmony(said, "42", plan=plan(budget), chunk=chunk)
    again = len(SPECIAL.encode(HARMONY.again or ""))
    kept = min(budget, 6 + 4)
    assert life.outcome.thinking_tokens == life.outcome.audited_tokens == kept
    assert life.content == "42"
    natural = budget >= 6 + 4
    assert (life.outcome.end_cause == "natural") is natural
    if not natural:
        thought = SPECIAL.encode(said)[: kept if kept <= 6 else kept + again]
        assert life.prompts[1] == [*PROMPT, *thought, *CLOSE]
        assert life.reasoning == "I add. So."[:kept]


@pytest.mark.parametrize("marker", [HARMONY.end, HARMONY.again])
def test_a_marker_spelled_out_ends_nothing(marker: str) -> None:
    said = [*b"ab", *marker.encode(), *b"c", *SPECIAL.encode(HARMONY.end), *b"42", EOS]
    form = CompiledFormat.of(HARMONY, "template", SPECIAL)
    life = live(script=tokens(said), plan=plan(200), vocabulary=SPECIAL, form=form)
    assert (life.reasoning, life.content) == (f"ab{marker}c", "42")


def test_a_surrogate_in_bytes_is_no_special_token() -> None:
    said = [*b"a\xed\xa0\x80", *SPECIAL.encode(HARMONY.end), *b"42", EOS]
    form = CompiledFormat.of(HARMONY, "template", SPECIAL)
    life = live(script=tokens(said), plan=plan(99), vocabulary=SPECIAL, form=form)
    assert life.reasoning == "a\ufffd\ufffd\ufffd"
    assert life.outcome.thinking_tokens == 4


def test_the_end_of_the_request_drops_half_a_marker() -> None:
    life = harmony("ab<|end|><|start|>assist", "42", plan=plan(99))
    assert (life.reasoning, life.content) == ("ab", "42")
    assert life.prompts[1] == [*PROMPT, *b"ab", *CLOSE]
    assert life.outcome.end_cause == "natural"


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_model_opens_its_thought(chunk: int) -> None:
    said = f"{HARMONY.start}ab{HARMONY.end}42"
    life = harmony(said, plan=plan(20), opened_by="model", chunk=chunk)
    assert (life.reasoning, life.content) == ("ab", "42")
    assert life.outcome.thinking_tokens == 2
    cut = harmony(said, "42", plan=plan(1), opened_by="model", chunk=chunk)
    assert cut.prompts[1] == [*PROMPT, *SPECIAL.encode(f"{HARMONY.start}a"), *CLOSE]


@pytest.mark.parametrize("budget", [0, 9])
def test_what_skips_a_thought_is_not_shown(budget: int) -> None:
    life = harmony("<|channel|>final<|message|>42", plan=plan(budget), opened_by="model")
    assert (life.reasoning, life.content) == ("", "42")


def test_half_a_marker_at_the_answers_end_is_not_shown() -> None:
    life = harmony("ab" + HARMONY.end + "42<|end|><|start|>assi", plan=plan(9))
    assert life.content == "42"


def test_another_message_in_the_answer_is_another_block() -> None:
    life = harmony(f"ab{HARMONY.end}c{HARMONY.again}d{HARMONY.end}e", plan=plan(9))
    assert (life.reasoning, life.content, life.outcome.thinking_tokens) == ("abd", "ce", 3)


@pytest.mark.parametrize(
    ("form", "vocabulary"), [(GEMMA, GEMMAS), (KIMI, KIMIS)], ids=["Gemma", "Kimi"]
)
@pytest.mark.parametrize("opened_by", ["template", "model"])
@pytest.mark.parametrize("chunk", [1, 3, 99])
def test_other_families(
    form: ThoughtFormat,
    vocabulary: ByteVocabulary,
    opened_by: Literal["template", "model"],
    chunk: int,
) -> None:
    unwrap = form.wrapper[1] if form.wrapper else ""
    start = form.start if opened_by == "model" else ""
    said = f"{start}think it{form.end}4{form.start}2{form.end}2{unwrap}"
    life = live(
        said,
        "42" + unwrap,
        plan=plan(99),
        vocabulary=vocabulary,
        form=CompiledFormat.of(form, opened_by, vocabulary),
        chunk_sizes=(chunk,),
    )
    assert (life.reasoning, life.content) == ("think it2", "42")
    assert life.outcome.thinking_tokens == 9
    cut = live(
        said,
        "42" + unwrap,
        plan=plan(5),
        vocabulary=vocabulary,
        form=CompiledFormat.of(form, opened_by, vocabulary),
        chunk_sizes=(chunk,),
    )
    assert (cut.reasoning, cut.content) == ("think", "42")


def test_a_prompt_without_a_thought_is_skipped_as_the_format_says() -> None:
    assert CompiledFormat.of(HARMONY, "model", SPECIAL).skip.ids == tuple(
        SPECIAL.encode("<|channel|>final<|message|>")
    )
    gemma = CompiledFormat.of(GEMMA, "model", GEMMAS)
    assert gemma.skip.ids == tuple(GEMMAS.encode("<|channel>thought\n\n<channel|>"))
    assert gemma.skip.shown == gemma.close.shown == ""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.format.name)
def test_every_familys_own_words_are_read(family: object) -> None:
    """Natural, reopened and cut, with every marker's brackets as special tokens."""
    form: ThoughtFormat = family.format  # type: ignore[attr-defined]
    names = {f"<|{name}|>" for name in ("channel", "message", "end", "start", "eom", "think")}
    names |= {f"<|{name}|>" for name in ("content", "begin", "open", "close", "sep")}
    vocabulary = ByteVocabulary(special=sorted(names | {"<|channel>", "<channel|>"}))
    open_, close = form.wrapper or ("", "")
    said = f"so it is{form.close_text}{open_}4{form.start}2{form.end}2{close}"
    compiled = CompiledFormat.of(form, "template", vocabulary)
    for budget, reasoning in ((99, "so it is"), (4, "so i")):
        life = live(
            said, f"{open_}42{close}", plan=plan(budget), vocabulary=vocabulary, form=compiled
        )
        assert life.reasoning.startswith(reasoning)
        assert life.content == "42"
