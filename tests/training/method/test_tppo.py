"""What is sampled by windows over steps is what is sampled in one go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder.tasks.problems import Problem
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import Verdict
from ponder.training.method.batch import Batch, Context, Node, Rollout
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.hbpo import HbpoConfig
from ponder.training.method.settings import MethodSettings
from ponder.training.method.tppo import TPpo
from ponder.training.rollout.experience import Collector, Experience, Share
from ponder.training.rollout.plans import Reader
from ponder.training.rollout.rows import Row
from training.method.scored import context, ranked, scored
from training.policy import metrics, recipe, train

WINDOW = [{"tppo": {"window": 7}}]


def judge(asked: Iterable[tuple[Problem, str]]) -> list[Verdict]:
    return [Verdict(text.strip() == "7") for _, text in asked]


def collector(reader: Reader, config: MethodSettings) -> Collector:
    return Collector(config, TINY_TASKS, reader, judge, prompts=4, updates=2, seed=0)


def sampler_of(reader: Reader) -> Any:
    """A model whose next token the noise decides: words, then the end, an answer, and over."""
    encode, eos = reader.tokenizer.encode, min(reader.tokenizer.eos_token_ids)
    (word,), (yes,), (no,) = map(encode, (" and", "7", "8"))
    end = reader.form.end.token_id
    assert end is not None

    def following(ids: Sequence[int], noise: float) -> int:
        if ids[-1] in (yes, no):
            return eos
        if ids[-1] == end:
            return yes if noise < 0.6 else no
        return end if noise < 0.12 else word

    def sampler(
        prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        written = []
        for prompt, noise in zip(prompts, noise_BT.tolist(), strict=True):
            ids = list(prompt)
            for it in noise:
                ids.append(following(ids, it))
                if ids[-1] in stop_ids:
                    break
            written.append(ids[len(prompt) :])
        return written

    return sampler


def told(found: Experience) -> dict[tuple[int, ...], list[Row]]:
    """The rows that teach, by their prompts."""
    groups: dict[tuple[int, ...], list[Row]] = {}
    for rows in found.updates:
        for row in rows:
            if any(row.learnt):
                groups.setdefault(row.prompt, []).append(row)
    return groups


@pytest.mark.parametrize(
    "config",
    [
        GrpoConfig(group_size=3, longest=40),
        HbpoConfig(group_size=4, longest=40, loss_on_hint=False, count_hint=False),
    ],
)
def test_windows_add_up_to_whole_responses(reader: Reader, config: MethodSettings) -> None:
    sampler = sampler_of(reader)
    whole: dict[tuple[int, ...], list[Row]] = {}
    plain = collector(reader, config)
    for step in range(12):
        whole |= told(plain.collect(step, sampler, Share()))
    windowed = collector(reader, config.model_validate({**config.model_dump(), "add": WINDOW}))
    finished, waited, longest, steps = 0, 0, 0, 12
    for step in range(steps):
        found = windowed.collect(step, sampler, Share())
        assert [len(rows) for rows in found.updates] == [2 * config.group_size] * 2
        for prompt, rows in told(found).items():
            assert rows == whole[prompt]
            finished += 1
            longest = max(longest, *(sum(row.learnt) for row in rows))
        waited = max(waited, len(windowed._state["tppo"]))  # type: ignore[arg-type]
        assert found.metrics["sampled_tokens"] <= 4 * config.group_size * 7
    assert finished > 8 and waited > 0 and longest > 4 * 7


@pytest.mark.parametrize("window", [7, 2048])
def test_no_more_is_sampled_than_is_left(reader: Reader, window: int) -> None:
    config = GrpoConfig(group_size=3, longest=40, add=[{"tppo": {"window": window}}])
    sampler, windowed, widths = sampler_of(reader), collector(reader, config), []

    def seen(prompts: Any, noise_BT: torch.Tensor, stop_ids: frozenset[int]) -> list[list[int]]:
        widths.append(noise_BT.shape[1])
        return sampler(prompts, noise_BT, stop_ids)  # type: ignore[no-any-return]

    for step in range(6):
        windowed.collect(step, seen, Share())
    assert max(widths) == min(window, 40)


@pytest.mark.usefixtures("one_thread")
def test_a_step_in_which_nothing_ends_measures_nothing_of_it(
    reader: Reader, tmp_path: Path
) -> None:
    of_ended = {"reward", "accuracy", "thinking_tokens", "truncation_rate", "zero_variance_share"}
    config = GrpoConfig(group_size=3, longest=40, add=[{"tppo": {"window": 1}}])
    found = collector(reader, config).collect(0, sampler_of(reader), Share()).metrics
    assert {name for name, value in found.items() if math.isnan(value)} == of_ended
    train(recipe(tmp_path, "grpo", method={"add": [{"tppo": {"window": 1}}]}), tmp_path / "out")
    assert not [line for line in metrics(tmp_path / "out", "step") if of_ended & set(line)]


def test_what_a_checkpoint_keeps_goes_on(reader: Reader, tmp_path: Path) -> None:
    config = GrpoConfig(group_size=3, longest=40, add=WINDOW)
    sampler, first = sampler_of(reader), collector(reader, config)
    for step in range(3):
        first.collect(step, sampler, Share())
    first.save(tmp_path)
    again = collector(reader, config)
    again.load(tmp_path)
    for step in range(3, 6):
        one, two = (it.collect(step, sampler, Share()) for it in (first, again))
        assert one.updates == two.updates and one.metrics == two.metrics


def test_processes_share_what_goes_on() -> None:
    carry, go_on = TPpo().stages()[2], TPpo().stages()[0]
    whole = scored([2] * 4, open=[1, 0, 0, 0, 0, 1, 1, 1])
    rollouts = [
        Rollout(whole.prompts[i // 2], (Node((i, i + 1), "response"),), 0, ()) for i in range(8)
    ]
    whole = whole.with_rollouts(rollouts)
    parts = [whole.groups([q < 2 for q in range(4)]), whole.groups([q >= 2 for q in range(4)])]

    def step(batch: Batch, asked: Context) -> Batch:
        told_ = replace(
            asked,
            sampled=[batch],
            redraw=lambda key: next(p for p in whole.prompts if p.key == key),
        )
        carry(batch, told_)
        return go_on(Batch(batch.prompts, batch.sizes), told_)

    found, states = ranked(parts, step)
    alone = context()
    carry(whole, replace(alone, sampled=[whole]))
    assert states == [alone.state, alone.state]
    assert [group["key"] for group in alone.state["tppo"]] == ["q0", "q2", "q3"]
    begun = [[(p.key, p.begun) for p in part.prompts] for part in found]
    assert begun[0] == [("q0", ((0, 1), (1, 2))), ("q3", ((6, 7), (7, 8)))]
    assert begun[1] == [("q2", ((4, 5), (5, 6))), ("q2", ())]
