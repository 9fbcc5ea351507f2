"""Rollouts cut and close a thought exactly as the server does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.scripted import ByteVocabulary
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.tasks.problems import Problem
from ponder.thought.format import CompiledFormat, ThoughtFormat
from ponder.training.rollout.plans import Cut, Prompt, Reader, hinted, plain, truncated

VOCABULARY = ByteVocabulary()
EOS, END = VOCABULARY.EOS, VOCABULARY.END_THINK
FORM = CompiledFormat.of(ThoughtFormat(name="test"), "template", VOCABULARY)


def checkpoint(vocabulary: ByteVocabulary) -> Checkpoint:
    """One that has no files: cuts need no more than the bytes."""
    form = ThoughtFormat(name="test")
    compiled = CompiledFormat.of(form, "template", vocabulary)
    files = ModelFiles("", Path())
    return Checkpoint(files, cast(HFTokenizer, vocabulary), form, compiled)


BYTES = Reader(checkpoint(VOCABULARY))
OPEN = list(b"Q: ")


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
    assert cuts(script, [budget, 9], grace=0)[0] == expected


def cuts(script: list[int], budgets: list[int], grace: int | None) -> tuple[Cut | None, ...]:
    """What budgets leave of a thought, after which the model goes on with x."""
    whole = [*script, *[ord("x")] * 99]
    stop = next((i for i, token in enumerate(whole) if token in (END, EOS)), budgets[-1])
    prompts = [Prompt(problem("a"), tuple(OPEN), "a")]
    (found,) = truncated(
        prompts,
        1,
        Recorder(whole[: min(stop, budgets[-1]) + 1], [*b"ok", EOS]),
        BYTES,
        budgets=budgets,
        summaries=2,
        summary_tokens=20,
        grace=grace,
    )
    return found.cuts


@pytest.mark.parametrize(
    ("grace", "kept"), [(None, (19, 39)), (0, (20, 40)), (2, (19, 39)), (50, (5, 5))]
)
def test_the_grace_is_servings_or_the_recipes(grace: int | None, kept: tuple[int, ...]) -> None:
    """Serving's is a tenth: 2 of 20 tokens, 4 of 40."""
    script = [*b"a so. ", *b"b" * 12, *b".\n", *b"c" * 18, *b".\n", *b"d" * 40]
    assert cuts(script, [20, 40], grace) == tuple(Cut(n, FORM.close.ids) for n in kept)


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
    end, eos = reader.form.end.token_id, min(reader.tokenizer.eos_token_ids)
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
    end, eos = reader.form.end.token_id, min(reader.tokenizer.eos_token_ids)
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


@pytest.mark.parametrize(
    ("said", "budgets", "cuts", "kept"),
    [
        ("abc</think>It is 3.", (2, 3), [Cut(2, ()), Cut(11, ())], "abc</think>"),
        ("abcdefgh", (2, 5), [Cut(2, ()), Cut(5, ())], "abcdefgh"),
        ("abc</thin", (2, 3), [Cut(2, ()), Cut(3, ())], "abc</thin"),
    ],
    ids=["ends by itself", "is cut", "is cut at half a marker"],
)
def test_a_marker_of_several_tokens_ends_a_thought(
    said: str, budgets: tuple[int, ...], cuts: list[Cut], kept: str
) -> None:
    """No stop token ends the sampling with it: what follows is not the thought's."""
    spelt = ByteVocabulary(single_token_markers=False)
    reader = Reader(checkpoint(spelt))
    sampler = Recorder(spelt.encode(said), [*b"3", spelt.EOS])
    (found,) = truncated(
        [Prompt(problem("a"), tuple(OPEN), "a")],
        1,
        sampler,
        reader,
        budgets=budgets,
        summaries=1,
        summary_tokens=20,
        grace=0,
    )
    close = reader.form.close.ids
    expected = [Cut(c.kept, () if c.kept > 10 else close) for c in cuts]
    assert list(found.cuts) == expected
    assert bytes(found.sampled) == kept.encode()
    assert sampler.noise[0].shape == (1, budgets[-1] + len("</think>"))


def test_a_response_with_a_marker_of_several_tokens_is_formatted() -> None:
    spelt = ByteVocabulary(single_token_markers=False)
    reader = Reader(checkpoint(spelt))
    closed, open_ = [*b"ab</think>It is 3.", spelt.EOS], [*b"abc", spelt.EOS]
    found = plain([Prompt(problem("a"), tuple(OPEN), "a")], 2, 40, Recorder(closed, open_), reader)
    assert [(r.formatted, r.thinking_tokens, r.answer) for r in found] == [
        (True, 2, "It is 3."),
        (False, 3, ""),
    ]
