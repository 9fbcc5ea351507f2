"""How a thought opens, ends and is cut."""

import pytest

from ponder.engine.protocol import Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.budget import Source
from ponder.thought.format import Close
from server.thought.helpers import EOS, PROMPT, SINGLE, SPELT, Life, compiled, live, plan, tokens

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
    assert (life.reasoning, life.content) == ("", "42")
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
