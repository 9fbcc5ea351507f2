"""What repeats itself is a loop, and what only looks like it is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, cycle, islice

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.thought.exits.loop import (
    AFTER,
    COPIES,
    COVERED,
    EVERY,
    LONGEST,
    Loop,
    loop_period,
    nearly_repeats,
)
from ponder.thought.segment import AnswerRules
from ponder.thought.text import clean_cut
from ponder.thought.thought import Thought
from server.thought.helpers import PROMPT, SINGLE, SPELT, Life, compiled, live, plan, tokens

PERIODS = range(1, LONGEST + 1)


def covered(period: int) -> int:
    """Tokens that a loop of this period takes before it is one."""
    return max(COPIES * period, COVERED)


def looped(ids: Sequence[int]) -> int | None:
    """The least period of a loop at the end, by trying every one."""
    return next(
        (
            period
            for period in PERIODS
            if len(ids) >= covered(period)
            and all(ids[-at] == ids[-at - period] for at in range(1, covered(period) - period + 1))
        ),
        None,
    )


def closed_at(ids: Sequence[int], after: int = AFTER) -> int | None:
    """How many ASCII tokens a thought has when it is closed: the rule itself, place by place."""
    size = after
    while size < len(ids):
        period = looped(ids[:size])
        if period is None:
            size += EVERY
            continue
        begin = next(at for at in range(size) if periodic(ids[at:size], period))
        watched = range(size + 1, size + period + 1)
        ends = [
            at for at in watched if at < len(ids) and clean_cut(*map(chr, ids[at - 1 : at + 1]))
        ]
        close = period + max(ends, key=lambda end: (end - begin - 1) % period, default=size)
        looks = [*ends, size + period, close]
        broken = next((at for at in looks if at < len(ids) and not looped(ids[:at])), None)
        if broken is None:
            return close if close < len(ids) else None
        size = broken + EVERY
    return None


def periodic(ids: Sequence[int], period: int) -> bool:
    return list(ids[period:]) == list(ids[:-period])


def repeated(block: Sequence[int], size: int) -> list[int]:
    return list(islice(cycle(block), size))


@pytest.mark.parametrize("period", PERIODS)
def test_every_period_is_found_when_its_copies_are_complete(period: int) -> None:
    before = [*range(1000, 1300)]
    loop = repeated(range(2000, 2000 + period), covered(period))
    assert loop_period([*before, *loop]) == period
    assert loop_period(loop) == period
    assert loop_period([*before, *loop[:-1]]) is None
    assert loop_period([*before, *loop[1:]]) is None
    assert loop_period([*before, *loop[:-40], 7, *loop[-39:]]) is None


def test_longer_periods_are_none() -> None:
    assert loop_period(repeated(range(LONGEST + 1), 1000)) is None


@given(
    block=st.lists(st.integers(0, 3), min_size=1, max_size=140),
    tail=st.integers(0, 70),
    size=st.integers(0, 430),
    before=st.lists(st.integers(0, 3), max_size=60),
    slip=st.none() | st.integers(1, 400),
)
@example(block=[0] * 20 + [1], tail=0, size=64, before=[], slip=None)
@example(block=[1, *[0] * 50], tail=0, size=153, before=[], slip=None)  # period 1 within 51
@example(block=[*range(40), 3, *range(40)], tail=0, size=243, before=[], slip=None)
@example(block=[0xD800, 0x10000, 256, 0], tail=0, size=80, before=[], slip=None)
def test_the_search_finds_what_the_rule_says(
    block: list[int], tail: int, size: int, before: list[int], slip: int | None
) -> None:
    ids = [*before, *repeated([*block, *[0] * tail], size)]
    if slip is not None and slip <= len(ids):
        ids[-slip] = 9
    assert loop_period(ids) == looped(ids)


NEAR = {
    "counting": (f"{n}, " for n in count(1)),
    "counting down": (f"{999 - n} is not a square. " for n in count()),
    "a table": (f"| {n} | {n * n} | {n % 2} | even? |\n" for n in count(1)),
    "code": (f"    if x == {n}:\n        return {n + 1}\n" for n in count()),
    "cases": (f"Case {n}: let x = {n}. Then x + 1 = {n + 1}. No.\n" for n in count(1)),
    "sums": (f"1 + {n} = {n + 1}. Wait, is that right? 1 + {n} = {n + 1}. Yes.\n" for n in count()),
    "binary": (f"{n:b}" for n in count()),
    "dots": ("." * (n % 41) + "\n" for n in count()),
    "twice": (f"{word} {word} " for n in count() for word in [f"step{n}"]),
    "json": (f'{{"id": {n}, "tags": ["a", "b"], "next": null}},\n' for n in count()),
    "verse": (
        f"{n} green bottles hanging on the wall,\n{n} green bottles hanging on the wall,\n"
        f"and if one green bottle should accidentally fall,\n"
        for n in range(999, 0, -1)
    ),
    "chinese": (f"第{n}步：先计算{n}的平方，得到{n * n}。然后继续。" for n in count(1)),
    "arabic": (f"الخطوة {n}: نجمع {n} و {n + 1}. " for n in count(1)),
    "hindi": (f"चरण {n}: हम {n} और {n + 2} जोड़ते हैं। " for n in count(1)),
    "emoji": ("🙂" * (n % 7) + "🤔" * (n % 11) + f"{n} " for n in count(1)),
    "a board": ("." * (n % 8) + "Q" + "." * (7 - n % 8) + f" {n * n % 61}\n" for n in count()),
}


@pytest.mark.parametrize("text", NEAR)
def test_what_changes_in_each_line_is_no_loop(text: str) -> None:
    written = [*"".join(islice(NEAR[text], 300)).encode()]
    assert [size for size in range(1, len(written)) if loop_period(written[:size])] == []


# -- near repetitions --------------------------------------------------------------------------

PROSE = (
    "First I need the sum of the two prices. It is 42. The tax is a tenth of that, so 4.2.\n"
    "Together that makes 46.2. Let me check it once more: 42 + 4.2 = 46.2. Yes, that is right.\n"
)


@pytest.mark.parametrize("text", ["cases", "a table", "chinese", "json", "sums"])
def test_the_same_sentences_with_other_numbers_nearly_repeat(text: str) -> None:
    assert nearly_repeats("".join(islice(NEAR[text], 40)))
    assert nearly_repeats(PROSE + "Wait, is 42 right? " * 40)


def test_prose_and_what_is_short_do_not() -> None:
    assert not nearly_repeats("")
    assert not nearly_repeats("Is it 42? Is it 43? Is it 44? ")
    assert not nearly_repeats(PROSE)
    assert not nearly_repeats(PROSE * 2)
    assert not nearly_repeats("".join(f"{chr(97 + n)} is a letter.\n" for n in range(26)))


@given(
    sentences=st.lists(st.text("abc 1", min_size=1, max_size=9), min_size=1, max_size=30),
    numbers=st.lists(st.integers(0, 10**6), min_size=3, max_size=8),
)
def test_numbers_alone_never_tell_sentences_apart(sentences: list[str], numbers: list[int]) -> None:
    said = [sentence.strip() for sentence in sentences if sentence.strip()]
    texts = ["".join(f"{one} {number}.\n" for one in said) for number in numbers]
    assert nearly_repeats("".join(texts)) == (len(said) * len(numbers) > COPIES)


# -- in a thought ------------------------------------------------------------------------------

WAIT = b"Wait, let me check that again. "
CLOSED = closed_at(repeated(WAIT, 2500)) or 0


def think(ids: Sequence[int], budget: int = 2000, after: int = AFTER, **more: object) -> Life:
    return live(
        script=tokens(ids, b"42"),
        plan=plan(budget, allowance=3000, max_answer=200),
        exits=[Loop(after)],
        **more,  # type: ignore[arg-type]
    )


def test_a_loop_is_closed_and_answered() -> None:
    said = [*b"I add 40 and 2, which is 42. ", *repeated(WAIT, 2500)]
    life = think(said)
    assert (life.outcome.end_cause, life.outcome.answer_forced) == ("loop", True)
    assert life.outcome.thinking_tokens == life.outcome.audited_tokens == closed_at(said)
    assert life.reasoning == (b"I add 40 and 2, which is 42. " + WAIT * 9).decode().rstrip()
    assert life.content.startswith("42")
    assert len(life.engine.outputs[0]) == life.outcome.thinking_tokens + 1


@pytest.mark.parametrize(
    ("before", "last"),
    [("", "70 - 14 = 56.\n"), ("Let me check it carefully.\n{}", "So it is 56.\n")],
)
def test_it_is_closed_before_the_line_that_turned_back(before: str, last: str) -> None:
    """Not after "Let me check": a model that is about to calculate does not answer right."""
    first = "The question is 70 - 14.\nAt first sight 30.\nLet me see.\n70 - 14 = 56.\nSo 56.\n"
    check = "70 - 14 = 56.\nSo it is 56.\n"
    life = think(
        [*f"{first}{before.format(check)}{f'Let me check again.{chr(10)}{check}' * 99}".encode()]
    )
    assert life.outcome.end_cause == "loop"
    assert life.reasoning.endswith(f"\n{last}")


def test_a_loop_without_an_end_of_a_line_is_closed_after_a_copy() -> None:
    said = [*b"I add them", *repeated(b" and again", 2500)]
    assert think(said).outcome.thinking_tokens == closed_at(said) == AFTER + len(" and again")


def test_a_loop_that_is_left_before_its_next_copy_ends_is_none() -> None:
    said = [*repeated(WAIT, AFTER + 20), *"".join(f"{n} is odd. " for n in range(100)).encode()]
    assert closed_at(said) is None
    assert think([*said, SINGLE.END_THINK, *b"42"]).outcome.end_cause == "natural"


@given(
    before=st.integers(0, 600),
    block=st.text("ab \n漢é🙂", min_size=1, max_size=40),
    copies=st.integers(1, 40),
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    vocabulary=st.sampled_from([SINGLE, SPELT]),
)
def test_the_cut_depends_on_the_tokens_alone(
    before: int, block: str, copies: int, chunks: list[int], vocabulary: ByteVocabulary
) -> None:
    numbers = islice("".join(f"{n}." for n in range(before)).encode(), before)
    thought = [*numbers, *(block * copies).encode()]
    said = [*thought, *vocabulary.encode("</think>"), *b"42"]
    one = think(said, vocabulary=vocabulary)
    many = think(said, vocabulary=vocabulary, chunk_sizes=chunks)
    assert one.outcome.thinking_tokens == many.outcome.thinking_tokens
    assert one.outcome.end_cause == many.outcome.end_cause
    assert one.engine.requests == many.engine.requests
    assert (one.reasoning, one.content) == (many.reasoning, many.content)


@given(
    before=st.text("ab.\n", max_size=300),
    block=st.text("ab.\n ", min_size=1, max_size=LONGEST),
    slips=st.lists(st.integers(0, 1999), max_size=3),
)
@example(before="", block="a\nbbb\nab\n", slips=[])
@example(before="", block="a\nbbb\nab\n", slips=[266])  # left while one copy is watched
@example(before="", block="ab", slips=[])
def test_the_cut_is_where_the_rule_says(before: str, block: str, slips: list[int]) -> None:
    said = [*before.encode(), *repeated(block.encode(), 2000)]
    for slip in slips:
        said[slip] = ord("!")
    life = think([*said, SINGLE.END_THINK, *b"42"], budget=3000)
    close = closed_at(said)
    assert life.outcome.end_cause == ("natural" if close is None else "loop")
    assert life.outcome.thinking_tokens == (len(said) if close is None else close)


def test_it_looks_at_whole_characters() -> None:
    life = think(repeated("ab漢字。".encode(), 2000))
    assert life.outcome.end_cause == "loop"
    assert life.reasoning.endswith("。")
    assert life.reasoning + ("ab漢字。" * 400)[len(life.reasoning) :] == "ab漢字。" * 400


def test_an_end_where_a_loop_would_be_closed_is_natural() -> None:
    life = think([*repeated(WAIT, CLOSED), SINGLE.END_THINK, *b"42"])
    assert (life.outcome.end_cause, life.outcome.thinking_tokens) == ("natural", CLOSED)


def test_a_budget_comes_first() -> None:
    said = repeated(WAIT, 2500)
    assert think(said, budget=CLOSED - 1).outcome.end_cause == "budget"
    assert think(said, budget=CLOSED).outcome.end_cause == "budget"
    assert think(said, budget=CLOSED + 1).outcome.end_cause == "loop"


def test_answers_may_repeat_themselves() -> None:
    life = live(
        script=tokens([*b"so", SINGLE.END_THINK, *repeated(WAIT, 2000)]),
        plan=plan(300, allowance=3000, max_answer=1000),
        exits=[Loop()],
    )
    assert (life.outcome.end_cause, len(life.content)) == ("natural", 1000)


def test_a_least_thought_comes_before_the_first_look() -> None:
    life = think(repeated(WAIT, 2500), after=700)
    assert life.outcome.end_cause == "loop"
    assert life.outcome.thinking_tokens == closed_at(repeated(WAIT, 2500), after=700)


@pytest.mark.parametrize(
    "more",
    [
        {"sampling": Sampling(max_tokens=1, presence_penalty=1.0)},
        {"rules": AnswerRules(min_tokens=3)},
    ],
)
def test_a_thought_apart_is_closed_as_well(more: dict[str, object]) -> None:
    life = think(repeated(WAIT, 2500), **more)
    assert (life.outcome.end_cause, life.outcome.thinking_tokens) == ("loop", CLOSED)


@given(at=st.integers(0, 500), chunk=st.integers(1, 40))
def test_a_fork_finds_the_same_loop(at: int, chunk: int) -> None:
    said = [*range(32, 127), *repeated(WAIT, 700)]
    found = closed_at(said)
    assume(found is not None)
    living = Thought(
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(2000, allowance=3000),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=[Loop()],
    )
    living.start(0.0)
    living.feed(Chunk(said[:at]), 0.0)
    fork = living.fork()
    for life in (living, fork):
        for start in range(at, len(said), chunk):
            if life.outcome.thought_ended_at is None:
                life.feed(Chunk(said[start : start + chunk]), 0.0)
        assert (life.outcome.end_cause, life.outcome.thinking_tokens) == ("loop", found)
