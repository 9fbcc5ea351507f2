"""The answer behind the thought: its retry, its stop strings, its own cap."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from ponder.engine.protocol import Chunk, Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.answer import AnswerDelta
from ponder.thought.errors import AnswerDidNotFit, NoAnswerProduced
from ponder.thought.segment import AnswerRules, Segment
from server.thought.helpers import EOS, FORM, PROMPT, SINGLE, SPELT, compiled, live, plan, tokens

CLOSE = compiled().close.ids


def test_an_empty_answer_is_tried_once_more() -> None:
    life = live("ab</think>\n\n", "42", plan=plan(5))
    assert life.content == "42"
    assert life.counts == (2, 0, 1 + 2 + 2 + 1, 1)  # marker, blanks, "42", EOS; the discarded EOS
    assert life.prompts[1] == [*PROMPT, *SINGLE.encode("ab</think>\n\n")]
    assert life.samplings[1].min_tokens == 1


def test_an_empty_forced_answer_is_tried_once_more() -> None:
    life = live("0123456789", " ", "42", plan=plan(5))
    assert life.content == "42"
    assert life.prompts[2] == [*life.prompts[1], ord(" ")]


@pytest.mark.parametrize("chunks", [(1,), (7,)])
def test_an_answer_that_stays_empty_is_an_error(chunks: Sequence[int]) -> None:
    blanks = [*SINGLE.encode("ab</think>"), *b" " * 99, EOS]
    life = live(script=tokens(blanks, [*b" ", EOS]), plan=plan(5), chunk_sizes=chunks)
    assert isinstance(life.failure, NoAnswerProduced)
    assert life.content == ""


@pytest.mark.parametrize(
    ("limit", "most"), [("max_answer_tokens", 1), ("max_completion_tokens", None)]
)
def test_the_limit_that_left_no_answer_is_named(limit: str, most: int | None) -> None:
    blanks = [*SINGLE.encode("ab</think>"), *b" " * 99, EOS]
    life = live(script=tokens(blanks, [*b" ", EOS]), plan=plan(5, max_answer=most))
    assert f"raise `{limit}`" in str(life.failure)


@pytest.mark.parametrize(("room", "kind"), [(1, AnswerDidNotFit), (20, NoAnswerProduced)])
def test_who_left_no_room_is_told_from_a_model_without_an_answer(
    room: int, kind: type[NoAnswerProduced]
) -> None:
    life = live(script=tokens([*b" " * 99]), plan=plan(0, allowance=room, reserve=1))
    assert type(life.failure) is kind
    assert life.outcome.failure is life.failure
    assert life.failure.field == ("max_completion_tokens" if room == 1 else None)


@pytest.mark.parametrize("vocabulary", [SINGLE, SPELT])
@pytest.mark.parametrize("chunk", [1, 3, 50])
@pytest.mark.parametrize(
    "texts",
    [
        ("ab</think>\n\n42</think> and<think>no</think> so",),
        ("0123456789", "\n 42 and so"),
        ("ab</think>\n\n", "\n42 and so"),
    ],
)
def test_log_probabilities_are_those_of_the_content(
    texts: tuple[str, ...], chunk: int, vocabulary: ByteVocabulary
) -> None:
    sampling = Sampling(max_tokens=1, logprobs=0)
    life = live(
        *texts, plan=plan(5), vocabulary=vocabulary, sampling=sampling, chunk_sizes=(chunk,)
    )
    answers = [delta for delta in life.deltas if isinstance(delta, AnswerDelta)]
    told = [entry.token_id for delta in answers for entry in delta.logprobs]
    assert life.content == "42 and so"
    assert told == [*life.content.encode()]


@pytest.mark.parametrize("chunks", [(1,), (7,)])
@pytest.mark.parametrize("said", ["a thought</think>an answer", "x" * 90])
def test_log_probabilities_are_not_kept(said: str, chunks: Sequence[int]) -> None:
    """Neither those of the thought, which nobody asked for, nor those of what was shown."""
    kept: list[int] = []

    class Watched(Segment):
        def take(self, chunk: Chunk) -> None:
            kept.append(len(self.logprobs))
            super().take(chunk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ponder.thought.segment.Segment", Watched)
        sampling = Sampling(max_tokens=1, logprobs=2)
        life = live(said, plan=plan(40), sampling=sampling, chunk_sizes=chunks)
    assert life.content and max(kept) == 0


def test_a_retry_keeps_to_the_least_that_was_asked_for() -> None:
    life = live("", "42", plan=plan(5), rules=AnswerRules(min_tokens=5))
    assert life.samplings[-1].min_tokens == 5


def test_without_a_token_left_there_is_no_retry() -> None:
    life = live("0123456789", "", plan=plan(5, allowance=5 + len(CLOSE) + 1, reserve=1))
    assert life.failure is not None
    assert len(life.prompts) == 2
    assert life.outcome.completion_tokens == 5 + len(CLOSE) + 1


def test_an_answer_prefix_alone_is_no_answer() -> None:
    form = compiled(form=replace(FORM, answer_prefix="The answer is "))
    life = live("0123456789", "", "42", plan=plan(5), form=form)
    assert life.content == "The answer is 42"
    assert life.outcome.retry_tokens == 1


def test_a_shown_prefix_belongs_to_the_answer_of_budget_zero() -> None:
    life = live("42", plan=plan(0), shown_prefix="\n\nThe answer is ")
    assert life.content == "The answer is 42"
    assert life.counts == (0, 0, 3, 0)
    assert life.outcome.end_cause == "disabled"


def test_a_stop_string_may_empty_the_answer() -> None:
    life = live("ab</think>\n\nEND", plan=plan(5), rules=AnswerRules(stop=("END",)))
    assert (life.content, life.failure) == ("", None)
    assert (life.outcome.finish_reason, life.outcome.stop_string) == ("stop", "END")
    assert len(life.prompts) == 1


def test_a_stop_string_in_the_answer_prefix_asks_nothing_of_the_engine() -> None:
    rules = AnswerRules(stop=(":",))
    life = live("42", plan=plan(0), shown_prefix="Answer: ", rules=rules)
    assert life.content == "Answer"
    assert life.prompts == []


def test_a_stop_string_means_nothing_in_the_thought() -> None:
    life = live("END ab</think>c END", plan=plan(10), rules=AnswerRules(stop=("END",)))
    assert (life.reasoning, life.content) == ("END ab", "c ")


@pytest.mark.parametrize(
    "texts",
    [
        ("ab</think>4242",),
        ("0123456789", "4242"),
        ("\n<think>ab</think>4242",),
    ],
)
@pytest.mark.parametrize(("most", "content"), [(1, "4"), (2, "42"), (4, "4242")])
@pytest.mark.parametrize("chunk", [1, 5, 50])
def test_max_answer_tokens_counts_what_follows_the_thought(
    texts: tuple[str, ...], most: int, content: str, chunk: int
) -> None:
    opened_by: Literal["template", "model"] = "model" if texts[0][0] == "\n" else "template"
    life = live(*texts, plan=plan(5, max_answer=most), opened_by=opened_by, chunk_sizes=(chunk,))
    assert (life.content, life.outcome.finish_reason) == (content, "length")


def test_max_answer_tokens_bounds_an_answer_without_a_thought() -> None:
    life = live(" 4242", plan=plan(5, max_answer=2), opened_by="model")
    assert (life.content, life.counts) == ("4", (0, 0, 2, 0))


def test_an_answer_that_fills_the_allowance_is_cut_by_length() -> None:
    life = live("ab</think>" + "y" * 500, plan=plan(5, allowance=60))
    assert life.outcome.completion_tokens == 60
    assert life.outcome.finish_reason == "length"


@pytest.mark.parametrize("said", ["", "  ", " a"])
def test_a_verbatim_answer_may_be_empty(said: str) -> None:
    life = live(said, "42", plan=plan(0), rules=AnswerRules(verbatim=True))
    assert (life.content, life.failure) == (said, None)
    assert len(life.engine.requests) == 1
