"""DOT cuts the tails of outliers, and judges again what is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import pytest
import torch

from ponder.tasks.problems import Problem
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import Verdict
from ponder.training.method.batch import Batch, Node, Rollout
from ponder.training.method.dapo import DapoConfig
from ponder.training.method.dot import Dot
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.settings import MethodSettings
from ponder.training.rollout.experience import Collector, Experience, Share
from ponder.training.rollout.plans import Reader
from training.method.scored import context, prompt, scored


def group(lengths: Sequence[int], correct: Sequence[bool]) -> Batch:
    rollouts = [Rollout(prompt("q0"), (Node((7,) * n, "response"),), n, ()) for n in lengths]
    return scored([len(lengths)], correct=correct).with_rollouts(rollouts)


def cut(dot: Dot, lengths: Sequence[int], correct: Sequence[bool] | None = None) -> list[int]:
    """The lengths that it leaves."""
    seen = group(lengths, correct or [True] * len(lengths))
    return [len(rollout.of("response")) for rollout in dot(seen, context()).rollouts]


def test_the_worked_group() -> None:
    """Mean 175, unbiased std 259.8: T = ⌊954.4⌋, and 46 tokens are above it."""
    assert Dot().limit([100] * 11 + [1000]) == 954
    assert cut(Dot(), [100] * 11 + [1000]) == [100] * 11 + [954]


def test_short_tails_stay() -> None:
    """Mean 116.7, std 57.7: T = 289, and 11 tokens are above it."""
    lengths = [100] * 11 + [300]
    assert cut(Dot(), lengths) == lengths
    assert cut(Dot(least=12), lengths) == lengths
    assert cut(Dot(least=11), lengths) == [100] * 11 + [289]


def test_a_group_with_a_wrong_answer_is_left_alone() -> None:
    lengths = [100] * 11 + [1000]
    assert cut(Dot(), lengths, [False] + [True] * 11) == lengths


@pytest.mark.parametrize("size", range(2, 20))
def test_alpha_3_cuts_nothing_in_ten(size: int) -> None:
    """One outlier is as far from the mean as a length can be."""
    lengths = [1] * (size - 1) + [1_000_000]
    fires = cut(Dot(least=1), lengths) != lengths
    assert fires == (size > 10) == (not list(Dot().notes(size)))


def test_the_note_names_the_group_that_is_large_enough() -> None:
    (note,) = Dot().notes(10)
    assert "of 10 lengths none is alpha = 3" in note and "group_size to 11" in note
    (note,) = Dot(alpha=1.5).notes(4)
    assert "group_size to 5" in note and not list(Dot(alpha=1.5).notes(5))


def test_no_more_than_the_tail_is_cut() -> None:
    rng = Random(0)
    for _ in range(300):
        dot = Dot(alpha=rng.choice([0.5, 1.0, 2.0]), least=rng.randint(1, 40))
        lengths = [rng.choice([rng.randint(1, 60), 400]) for _ in range(rng.randint(2, 16))]
        limit = dot.limit(lengths)
        for before, left in zip(lengths, cut(dot, lengths), strict=True):
            assert left == (limit if before - limit >= dot.least else before)


# -- on responses ------------------------------------------------------------------------------


def collect(
    reader: Reader, config: MethodSettings, words: Sequence[int], ramble: int = 0
) -> Experience:
    """A step on right answers to thoughts of so many words; the last rambles after its answer."""
    encode, (eos, *_) = reader.tokenizer.encode, sorted(reader.tokenizer.eos_token_ids)
    (word,), end = encode(" and"), encode(reader.form.end.text)

    def judge(asked: Iterable[tuple[Problem, str]]) -> list[Verdict]:
        return [Verdict(text.strip().startswith("yes")) for _, text in asked]

    def sampler(
        prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        written = []
        for i in range(len(prompts)):
            n = words[i % len(words)]
            tail = [word] * ramble if i % len(words) == len(words) - 1 else []
            written.append([*[word] * n, *end, *encode("yes"), *tail, eos])
        return written

    made = Collector(config, TINY_TASKS, reader, judge, prompts=1, updates=1, seed=0)
    return made.collect(0, sampler, Share())


def test_a_thought_without_its_tail_is_wrong(reader: Reader) -> None:
    add = [{"dot": {"alpha": 1, "least": 2}}]
    found = collect(reader, GrpoConfig(group_size=4, longest=200, add=add), [10, 10, 10, 90])
    rows = found.updates[0]
    whole = len(rows[0].completion)
    limit = Dot(alpha=1).limit([whole] * 3 + [whole + 80])
    assert [len(row.completion) for row in rows] == [whole] * 3 + [limit]
    assert [row.advantages[0] > 0 for row in rows] == [True] * 3 + [False]
    assert all(all(row.learnt) for row in rows)
    assert found.metrics["accuracy"] == 0.75 and found.metrics["truncation_rate"] == 0.25


def test_an_answer_that_was_given_before_the_cut_stays_right(reader: Reader) -> None:
    add = [{"dot": {"alpha": 1, "least": 2}}]
    config = GrpoConfig(group_size=4, longest=200, add=add)
    found = collect(reader, config, [10] * 4, ramble=80)
    rows = found.updates[0]
    assert len(rows[3].completion) < 80 + len(rows[0].completion)
    assert found.metrics["accuracy"] == 1
    assert not any(any(row.advantages) for row in rows)


def test_the_group_then_passes_dapos_filter(reader: Reader) -> None:
    config = DapoConfig(group_size=4, longest=200, generation_batches=2)
    words = [10, 10, 10, 90]
    assert not any(any(row.learnt) for row in collect(reader, config, words).updates[0])
    dotted = DapoConfig(**{**config.model_dump(), "add": [{"dot": {"alpha": 1, "least": 2}}]})
    found = collect(reader, dotted, words)
    assert all(all(row.learnt) for row in found.updates[0])
    assert found.metrics["generation_batches"] == 1
