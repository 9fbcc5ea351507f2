"""Rollouts cut and close a thought exactly as the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.base import Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine
from ponder.engine.tokenizer import HFTokenizer
from ponder.tasks.problems import Problem
from ponder.thought.budget import Plan
from ponder.thought.controller import AnswerRules, Outcome, Thought
from ponder.thought.format import CompiledFormat, ThoughtFormat
from ponder.training.rollout.plans import Cut, Prompt, Reader, hinted, plain, truncated

VOCABULARY = ByteVocabulary()
EOS, END = VOCABULARY.EOS, VOCABULARY.END_THINK
FORM = CompiledFormat.of(ThoughtFormat(name="test"), "template", VOCABULARY)
BYTES = Reader(cast(HFTokenizer, VOCABULARY), FORM)  # cuts need no more than the bytes
OPEN = list(b"Q: ")

# Characters of one to four tokens, so that cuts fall inside of some.
WRITTEN = st.lists(
    st.sampled_from([[97], [10], [END], [EOS], *(list(c.encode()) for c in "bß漢🙂")]),
    max_size=24,
).map(lambda parts: [token for part in parts for token in part])


def rolled_out(script: Sequence[int], longest: int) -> list[int]:
    """What a sampler that stops at both ends gives of a script: the model goes on with x."""
    sampled: list[int] = []
    for token in [*script, *[ord("x")] * (longest + 1)]:
        sampled.append(token)
        if token in (END, EOS) or len(sampled) == longest + 1:
            break
    return sampled


def served(script: Sequence[int], budget: int) -> tuple[list[list[int]], Outcome]:
    """The prompts of the engine's requests, and the outcome, under the server's controller."""

    def play(_: Sequence[int], number: int) -> Iterator[int]:
        yield from script if number == 0 else [*b"ok", EOS]

    engine = ScriptedEngine(play, VOCABULARY)
    plan = Plan(requested=budget, budget=budget, source="request", allowance=300, reserve=50)
    thought = Thought(
        engine,
        VOCABULARY,
        FORM,
        prompt=OPEN,
        plan=plan,
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        request_id="r",
    )
    outcome = asyncio.run(thought.run(lambda _: None))
    return [prompt for prompt, _ in engine.requests], outcome


@given(script=WRITTEN, budget=st.integers(1, 40), more=st.integers(0, 20))
def test_a_cut_is_the_servers(script: list[int], budget: int, more: int) -> None:
    """Whatever larger budgets the same thought serves, `more` tokens larger."""
    cut = BYTES.cut(rolled_out(script, budget + more), budget)
    # The script's answer is its own business: the thought is what is compared.
    end = script.index(END) + 1 if END in script else len(script)
    prompts, outcome = served([*script[:end], *b"yes", EOS] if END in script else script, budget)
    if cut is None:
        assert EOS in script[: budget + 1]
        assert outcome.end_cause == "natural"
    elif cut.close:
        assert outcome.end_cause == "budget"
        written = [*script, *[ord("x")] * budget]
        assert prompts[1] == [*OPEN, *written[: cut.kept], *cut.close]
        assert outcome.forced_tokens == len(cut.close)
    else:
        assert (outcome.end_cause, outcome.forced_tokens) == ("natural", 0)
        assert (outcome.thinking_tokens, script[cut.kept - 1]) == (cut.kept - 1, END)


@pytest.mark.parametrize(
    ("script", "budget", "expected"),
    [
        ([1, 2, 3, END], 3, Cut(4, ())),
        ([1, 2, 3, END], 2, Cut(2, FORM.close.ids)),
        ([1, 2, EOS], 3, None),
        ([1, 2, EOS], 2, Cut(2, FORM.close.ids)),  # the budget was spent before the end
        ([1, *"漢".encode(), 2], 3, Cut(1, FORM.close.ids)),
        ([1, 2, *"漢".encode()], 4, Cut(2, FORM.close.ids)),
    ],
)
def test_where_cuts_fall(script: list[int], budget: int, expected: Cut | None) -> None:
    assert BYTES.cut(script, budget) == expected


def problem(name: str) -> Problem:
    return Problem(f"test:{name}", "test", 1, name, "1")


class Recorder:
    """A sampler that writes what it is told and keeps what it was asked."""

    def __init__(self, *texts: list[int]) -> None:
        self.texts = list(texts)
        self.asked: list[list[int]] = []
        self.noise: list[torch.Tensor] = []
        self.stops: list[frozenset[int]] = []

    def __call__(
        self, prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        start = len(self.asked)
        self.asked += [list(p) for p in prompts]
        self.noise.append(noise_BT)
        self.stops.append(stop_ids)
        return [self.texts[(start + i) % len(self.texts)] for i in range(len(prompts))]


def test_hints_stand_behind_the_open_marker(reader: Reader) -> None:
    end, eos = reader.end_id, min(reader.tokenizer.eos_token_ids)
    prompts = [Prompt(problem(n), (1, 2), n) for n in "ab"]
    sampler = Recorder([7, 8, end, 9, eos], [7, 8])
    hints: list[tuple[int | None, tuple[int, ...]]] = [(8, (5,)), (None, ())]
    found = hinted(prompts, hints, 6, sampler, reader)
    assert sampler.asked == [[1, 2, 5], [1, 2], [1, 2, 5], [1, 2]]
    assert sampler.noise[0].shape == (4, 6)
    assert [r.budget for r in found] == [8, None, 8, None]
    assert [(r.formatted, r.thinking_tokens) for r in found[:2]] == [(True, 2), (False, 2)]
    assert found[0].answer == reader.text([9])  # a special token has no text
    assert found[1].answer == ""


def test_a_prompts_noise_is_its_own(reader: Reader) -> None:
    a, b = (Prompt(problem(n), (1,), n) for n in "ab")
    both, alone = Recorder([3]), Recorder([3])
    plain([a, b], 2, 4, both, reader)
    plain([b], 2, 4, alone, reader)
    assert torch.equal(both.noise[0][2:], alone.noise[0])


def test_one_thought_serves_every_budget(reader: Reader) -> None:
    end, eos = reader.end_id, min(reader.tokenizer.eos_token_ids)
    word = reader.tokenizer.encode("a")
    thought = [*word * 5, end]
    sampler = Recorder(thought, [*word, eos])
    (found,) = truncated(
        [Prompt(problem("a"), (1,), "a")],
        1,
        sampler,
        reader,
        budgets=(2, 5, 9),
        summaries=2,
        summary_tokens=8,
    )
    close = reader.form.close.ids
    assert found.cuts == (Cut(2, close), Cut(6, ()), Cut(6, ()))
    assert found.thinking_tokens == 5
    assert sampler.asked[1:] == [
        *[[1, *word * 2, *close]] * 2,
        *[[1, *thought]] * 4,
    ]
    assert [shape.shape for shape in sampler.noise] == [(1, 10), (6, 8)]
    assert sampler.stops == [
        reader.tokenizer.eos_token_ids | {end},
        reader.tokenizer.eos_token_ids,
    ]
    answered: list[Any] = [s.formatted for place in found.summaries for s in place]
    assert answered.count(True) == 3  # the recorder answers every other time with a thought


def test_a_text_that_ends_in_its_thought_has_no_summaries(reader: Reader) -> None:
    eos = min(reader.tokenizer.eos_token_ids)
    (found,) = truncated(
        [Prompt(problem("a"), (1,), "a")],
        1,
        Recorder([*reader.tokenizer.encode("a"), eos]),
        reader,
        budgets=(4, 8),
        summaries=2,
        summary_tokens=3,
    )
    assert found.cuts == (None, None)
    assert found.summaries == ((), ())


def test_an_end_marker_of_several_tokens_is_refused() -> None:
    spelt = ByteVocabulary(single_token_markers=False)
    form = CompiledFormat.of(ThoughtFormat(name="test"), "template", spelt)
    with pytest.raises(ValueError, match="add it to the checkpoint's tokenizer"):
        Reader(cast(HFTokenizer, spelt), form)
