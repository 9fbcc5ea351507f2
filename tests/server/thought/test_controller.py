import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from ponder.engine.base import Chunk, EngineDeadError, EngineError, Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.thought.budget import Source
from ponder.thought.controller import AnswerRules, Thought
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.format import Close
from server.thought.helpers import (
    EOS,
    FORM,
    PROMPT,
    SINGLE,
    SPELT,
    Life,
    compiled,
    live,
    plan,
    tokens,
)

CLOSE = compiled().close.ids


def thinking(life: Life, overhead: int = 0) -> bytes:
    """The thought in a re-entered prompt: what stands between the prompt and the close text."""
    return bytes(life.prompts[1][len(PROMPT) + overhead : -len(CLOSE)])


# -- natural ends ------------------------------------------------------------------------------


def test_a_thought_that_ends_by_itself_is_one_request() -> None:
    life = live("I add.</think>\n\n42", plan=plan(20))
    assert (life.reasoning, life.content) == ("I add.", "42")
    assert life.counts == (6, 0, 1 + 4 + 1, 0)  # marker, text with its blank, EOS
    assert (life.outcome.end_cause, life.outcome.finish_reason) == ("natural", "stop")
    assert not life.outcome.answer_forced
    assert len(life.prompts) == 1
    assert life.samplings[0].max_tokens == 300


def test_a_thought_may_use_its_whole_budget_and_end_by_itself() -> None:
    life = live("12345</think>ok", plan=plan(5))
    assert life.outcome.end_cause == "natural"
    assert life.outcome.thinking_tokens == 5


def test_a_tool_call_ends_a_thought_and_begins_the_answer() -> None:
    life = live("I look.<tool_call>{}", plan=plan(7))
    assert (life.reasoning, life.content) == ("I look.", "<tool_call>{}")
    assert life.counts == (7, 0, 1 + 2 + 1, 0)
    assert not life.outcome.answer_forced


def test_a_tool_call_alone_is_an_answer() -> None:
    life = live("I look.<tool_call>", plan=plan(20))
    assert life.content == "<tool_call>"
    assert len(life.prompts) == 1


def test_eos_inside_the_thought_closes_it_and_asks_for_the_answer() -> None:
    life = live("I stop", "42", plan=plan(20))
    assert (life.reasoning, life.content) == ("I stop", "42")
    assert life.counts == (6, len(CLOSE), 1 + 3, 0)  # the thought's EOS, "42", EOS
    assert life.outcome.end_cause == "natural"
    assert life.outcome.answer_forced
    assert thinking(life) == b"I stop"


def test_eos_behind_the_budget_is_a_cut() -> None:
    life = live("12345", "42", plan=plan(5, allowance=5 + len(CLOSE) + 1, reserve=1))
    assert life.outcome.end_cause == "budget"
    assert life.content == "4"  # the reserve is whole: EOS took nothing of it


def test_text_held_at_eos_is_shown() -> None:
    life = live("a </thi", "42", plan=plan(20), vocabulary=SPELT)
    assert life.reasoning == "a </thi"
    assert life.outcome.thinking_tokens == 7


def test_ignore_eos_thinks_on_past_eos() -> None:
    script = tokens([*b"ab", EOS, *b"cd"], list(b"42"))
    life = live(
        script=script, plan=plan(10, max_answer=4), sampling=Sampling(max_tokens=1, ignore_eos=True)
    )
    assert life.reasoning == "abcdxxxxx"
    assert life.counts == (10, len(CLOSE), 4, 0)
    assert (life.content, life.outcome.finish_reason) == ("42xx", "length")


def test_tokens_without_text_inside_a_character_do_not_hold_a_cut_for_ever() -> None:
    life = live(
        script=tokens([ord("a"), 0xE2, *[EOS] * 500], list(b"42")),
        plan=plan(10, max_answer=2),
        sampling=Sampling(max_tokens=1, ignore_eos=True),
    )
    assert life.reasoning == "a"
    assert len(life.engine.outputs[0]) < 20


# -- cuts --------------------------------------------------------------------------------------


def test_a_cut_closes_the_thought_and_re_enters_the_engine() -> None:
    life = live("0123456789 and so on", "42", plan=plan(10))
    assert (life.reasoning, life.content) == ("0123456789", "42")
    assert life.counts == (10, len(CLOSE), 3, 0)
    assert life.outcome.end_cause == "budget"
    assert life.outcome.answer_forced
    assert life.prompts[1] == [*PROMPT, *b"0123456789", *CLOSE]
    assert life.samplings[1].max_tokens == 300 - 10 - len(CLOSE)


@pytest.mark.parametrize("source", ["max_completion_tokens", "context"])
def test_a_cut_by_a_limit_of_length_says_so(source: Source) -> None:
    life = live("0123456789 and so on", "42", plan=plan(10, source=source))
    assert life.outcome.end_cause == "length"


def test_a_cut_drops_a_half_character() -> None:
    life = live("ab€€", "42", plan=plan(6))
    assert life.reasoning == "ab€"
    assert thinking(life) == "ab€".encode()
    assert life.outcome.thinking_tokens == 5


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("aaaa. bbbbbbb", "aaaa."),
        ("aaaaa\nbbbbbb", "aaaaa\n"),
        ("aa 3.14159265", "aa 3.14159"),
        ("a. b. c. d. e", "a. b."),  # the first clean end inside the grace, not before it
        ("abc。漢漢漢漢", "abc。"),  # no blank follows a sentence there
    ],
)
def test_the_grace_waits_for_a_clean_end_inside_the_budget(text: str, kept: str) -> None:
    life = live(text, "42", plan=plan(10, grace=6))
    assert life.reasoning == kept
    assert life.outcome.end_cause == "budget"
    assert life.outcome.thinking_tokens == len(kept.encode())


def test_an_end_marker_at_a_clean_end_is_natural() -> None:
    life = live("aaaa.</think>42", plan=plan(10, grace=8))
    assert life.outcome.end_cause == "natural"


def test_another_close_text_is_appended_and_its_rest_shown() -> None:
    form = compiled()
    close = Close.of(" So.</think>The answer: ", form.end, "", SINGLE)
    life = live("0123456789 and so on", "42", plan=plan(10), close=close)
    assert life.prompts[1] == [*PROMPT, *b"0123456789", *close.ids]
    assert life.content == "The answer: 42"
    assert life.outcome.forced_tokens == len(close.ids)


def test_a_close_of_many_tokens_never_eats_the_reserve() -> None:
    life = live("0" * 99, "12345", plan=plan(50, allowance=30, reserve=3))
    assert life.outcome.thinking_tokens + len(CLOSE) == 27
    assert life.content == "123"
    assert (life.outcome.end_cause, life.outcome.finish_reason) == ("length", "length")


# -- markers of several tokens -----------------------------------------------------------------


@pytest.mark.parametrize("budget", [6, 7, 20])
def test_a_marker_of_several_tokens_ends_a_thought(budget: int) -> None:
    life = live("I add.</think>\n\n42", plan=plan(budget), vocabulary=SPELT)
    assert (life.reasoning, life.content) == ("I add.", "42")
    assert life.counts == (6, 0, 8 + 4 + 1, 0)
    assert life.outcome.end_cause == "natural"


def test_what_only_begins_like_a_marker_is_thought() -> None:
    life = live("a </th b <<<</think>42", plan=plan(20), vocabulary=SPELT)
    assert (life.reasoning, life.content) == ("a </th b <<<", "42")
    assert life.outcome.thinking_tokens == 12


def test_a_marker_spelt_out_does_not_end_a_thought_whose_marker_is_a_token() -> None:
    life = live(script=tokens([*b"a</think>b", EOS], [*b"42", EOS]), plan=plan(20))
    assert life.reasoning == "a</think>b"


# -- thoughts the model opens ------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [SINGLE, SPELT])
def test_the_model_opens_its_thought(vocabulary: ByteVocabulary) -> None:
    text = "\n<think>\nI add.</think>42"
    life = live(text, plan=plan(20), vocabulary=vocabulary, opened_by="model")
    assert (life.reasoning, life.content) == ("I add.", "42")
    assert life.outcome.thinking_tokens == 7
    assert life.outcome.completion_tokens == len(life.engine.outputs[0])


def test_the_model_may_answer_without_a_thought() -> None:
    life = live(" 42</think>", plan=plan(20), opened_by="model")
    assert (life.reasoning, life.content) == ("", "42</think>")
    assert life.counts == (0, 0, 5, 0)


@pytest.mark.parametrize("text", ["<th", "<thorn> is a letter"])
def test_half_an_opening_marker_is_an_answer(text: str) -> None:
    life = live(text, plan=plan(20), vocabulary=SPELT, opened_by="model")
    assert (life.reasoning, life.content) == ("", text)


def test_an_opened_thought_is_cut_behind_its_marker() -> None:
    life = live("\n<think>0123456789 and so on", "42", plan=plan(10), opened_by="model")
    assert life.prompts[1] == [*PROMPT, ord("\n"), SINGLE.THINK, *b"0123456789", *CLOSE]
    assert life.counts == (10, len(CLOSE), 2 + 3, 0)


def test_the_opening_takes_its_room_from_the_thought_not_from_the_answer() -> None:
    tight = plan(10, allowance=10 + len(CLOSE) + 2, reserve=2)
    life = live("    <think>0123456789 and so on", "42", plan=tight, opened_by="model")
    assert (life.reasoning, life.content) == ("01234", "42")
    assert life.outcome.end_cause == "length"


def test_blanks_without_end_are_an_answer_that_never_came() -> None:
    life = live(" " * 500, plan=plan(10, allowance=40), opened_by="model")
    assert life.failure is not None
    assert life.outcome.completion_tokens == 40


# -- answers -----------------------------------------------------------------------------------


def test_reopening_the_marker_in_the_answer_starts_no_budget() -> None:
    life = live("ab</think>c<think>" + "d" * 100 + "</think>e", plan=plan(5))
    assert life.content == "c<think>" + "d" * 100 + "</think>e"
    assert life.outcome.thinking_tokens == 2
    assert len(life.prompts) == 1


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
    assert life.outcome.finish_reason == "stop"
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


# -- one request or two ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=1, presence_penalty=0.5),
        Sampling(max_tokens=1, frequency_penalty=0.5),
        Sampling(max_tokens=1, repetition_penalty=1.1),
    ],
)
def test_penalties_of_the_answer_do_not_count_the_thought(sampling: Sampling) -> None:
    life = live("ab</think>\n\n", "42", plan=plan(5), sampling=sampling)
    assert life.prompts[1] == [*PROMPT, *SINGLE.encode("ab</think>")]
    assert life.samplings[0].stop_token_ids == (SINGLE.END_THINK, SINGLE.TOOL_CALL)
    assert life.samplings[1].stop_token_ids == ()
    assert life.counts == (2, 0, 1 + 3, 0)


def test_stop_token_ids_hold_for_the_answer_alone() -> None:
    rules = AnswerRules(stop_token_ids=(ord("Z"),))
    life = live("aZb</think>", "4Z2", plan=plan(5), rules=rules)
    assert (life.reasoning, life.content) == ("aZb", "4")
    empty = live("aZb</think>", "Z", plan=plan(5), rules=rules)
    assert (empty.content, empty.failure) == ("", None)


def test_min_tokens_hold_for_the_answer_alone() -> None:
    life = live("ab</think>", "42", plan=plan(5), rules=AnswerRules(min_tokens=5))
    assert [sampling.min_tokens for sampling in life.samplings] == [0, 5]
    assert life.content == "42xxx" + "x" * (len(life.content) - 5)


def test_min_thinking_tokens_mask_the_end_marker() -> None:
    life = live("ab</think>cd</think>", "42", plan=plan(20, min_thinking=4))
    assert life.reasoning == "abxcd"
    assert life.samplings[0].min_tokens == 4
    opened = live(
        "<think>ab</think>cd</think>", "42", plan=plan(20, min_thinking=3), opened_by="model"
    )
    assert opened.reasoning == "abxcd"  # the opening marker is not a token of the thought


def test_two_requests_when_the_model_opens_no_thought() -> None:
    rules = AnswerRules(min_tokens=3)
    life = live("42", "1", plan=plan(20), opened_by="model", rules=rules)
    assert life.prompts[1] == [*PROMPT, ord("4")]
    assert life.samplings[1].min_tokens == 2
    assert life.content == "41x" + life.content[3:]


def test_an_answer_complete_before_it_was_decided_is_not_asked_again() -> None:
    life = live(
        "<th",
        plan=plan(20),
        vocabulary=SPELT,
        opened_by="model",
        sampling=Sampling(max_tokens=1, presence_penalty=1.0),
    )
    assert life.content == "<th"
    assert len(life.prompts) == 1


def test_re_entries_have_seeds_of_their_own() -> None:
    first, second = (
        live("0123456789", " ", "42", plan=plan(5), sampling=Sampling(max_tokens=1, seed=seed))
        for seed in (7, 8)
    )
    seeds = [sampling.seed for life in (first, second) for sampling in life.samplings]
    assert seeds[0] == 7
    assert len(set(seeds)) == 6
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds)
    unseeded = live("0123456789", "42", plan=plan(5))
    assert [sampling.seed for sampling in unseeded.samplings] == [None, None]


def test_the_thought_is_reported_in_chunks_that_meet_the_budget() -> None:
    life = live("0" * 30, "42", plan=plan(21), sampling=Sampling(max_tokens=1, chunk_tokens=8))
    assert [sampling.chunk_tokens for sampling in life.samplings] == [7, 8]


# -- engine ------------------------------------------------------------------------------------


def unheard(engine: ScriptedEngine) -> Thought:
    return Thought(
        engine,
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(1000, allowance=2000),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        request_id="r",
    )


def test_a_cancelled_run_aborts_the_engine_request() -> None:
    async def scenario() -> int:
        engine = ScriptedEngine(say("abc" * 1000, vocabulary=SINGLE), SINGLE, delay=0.001)
        task = asyncio.create_task(unheard(engine).run(lambda _: None))
        await asyncio.sleep(0.01)
        assert engine.unfinished() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine.unfinished()

    assert asyncio.run(scenario()) == 0


def test_a_reader_that_fails_aborts_the_engine_request() -> None:
    engine = ScriptedEngine(say("abc", vocabulary=SINGLE), SINGLE)

    def emit(_: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(unheard(engine).run(emit))
    assert engine.unfinished() == 0


def test_the_death_of_the_engine_is_told() -> None:
    engine = ScriptedEngine(say("abc", vocabulary=SINGLE), SINGLE)
    thought = unheard(engine)
    with pytest.raises(EngineDeadError):
        asyncio.run(thought.run(lambda _: engine.kill()))


def test_a_stream_that_breaks_off_is_the_engines_error() -> None:
    class Broken(ScriptedEngine):
        async def generate(self, prompt, sampling, request_id):  # type: ignore[no-untyped-def]
            yield Chunk([ord("a")])

    with pytest.raises(EngineError, match="ended before"):
        asyncio.run(unheard(Broken(say("a", vocabulary=SINGLE), SINGLE)).run(lambda _: None))


def test_times_are_in_order_and_the_cache_is_that_of_the_first_request() -> None:
    class Cached(ScriptedEngine):
        async def generate(self, prompt, sampling, request_id):  # type: ignore[no-untyped-def]
            async for chunk in super().generate(prompt, sampling, request_id):
                yield replace(chunk, cached_tokens=len(prompt))

    engine = Cached(say("a" * 2000, "42", vocabulary=SINGLE), SINGLE)
    outcome = asyncio.run(unheard(engine).run(lambda _: None))
    assert outcome.cached_tokens == len(PROMPT)
    assert outcome.first_token_at is not None
    assert outcome.thought_ended_at is not None
    assert outcome.first_answer_at is not None
    assert outcome.first_token_at < outcome.thought_ended_at < outcome.first_answer_at
