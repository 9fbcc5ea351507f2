"""What a step learns from, on a sampler that is told what to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from ponder.tasks.problems import Problem
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import Verdict
from ponder.training.algorithms import brpo, hbpo
from ponder.training.algorithms.outcomes import AnytimeOutcomes, Outcomes
from ponder.training.methods import BrpoConfig, HbpoConfig, MethodConfig
from ponder.training.rollout.drive import Sampler
from ponder.training.rollout.experience import Collector, Experience, Share
from ponder.training.rollout.plans import Reader
from ponder.training.rollout.rows import Row

CONFIG: TypeAdapter[Any] = TypeAdapter(MethodConfig)
HBPO = {"method": "hbpo", "longest": 64, "budgets": [8, 16], "group_size": 4}
DAPO = {"method": "dapo", "longest": 64, "group_size": 4, "generation_batches": 3}
BRPO = {"method": "brpo", "budgets": [4, 8], "group_size": 2, "summaries": 2, "summary_tokens": 6}
RIGHT = "yes"


def judge(items: Iterable[tuple[Problem, str]]) -> list[Verdict]:
    return [Verdict(text.strip() == RIGHT) for _, text in items]


def collector(reader: Reader, raw: dict[str, Any], prompts: int = 4, updates: int = 2) -> Collector:
    config = CONFIG.validate_python(raw)
    return Collector(config, TINY_TASKS, reader, judge, prompts=prompts, updates=updates, seed=7)


def by_noise(reader: Reader, right_below: float = 0.5) -> Sampler:
    """Thoughts and answers that the row's noise decides, as a model's would."""
    eos = min(reader.tokenizer.eos_token_ids)
    word = reader.tokenizer.encode(" and")

    def sampler(
        prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        written = []
        for prompt, noise in zip(prompts, noise_BT, strict=True):
            answer = reader.tokenizer.encode(RIGHT if noise[0] < right_below else "no")
            thought = [*word * int(2 + noise[1] * 9), reader.end_id]
            whole = [*answer, eos] if reader.end_id in prompt else [*thought, *answer, eos]
            if reader.end_id in stop_ids:
                whole = thought
            written.append(whole[: len(noise)])
        return written

    return sampler


def flat(experience: Experience) -> list[Row]:
    return [row for rows in experience.updates for row in rows]


def test_subgroups_have_their_hints_and_advantages(reader: Reader) -> None:
    found = collector(reader, HBPO).collect(0, by_noise(reader), Share())
    config = HbpoConfig.model_validate(HBPO)
    assert [len(rows) for rows in found.updates] == [8, 8]
    hints = [reader.tokenizer.encode(config.hint.format(budget=b)) for b in config.row_budgets]
    for start in range(0, 16, 4):
        group = flat(found)[start : start + 4]
        assert len({row.prompt for row in group}) == 1
        for row, hint in zip(group, hints, strict=True):
            assert list(row.completion[: len(hint)]) == hint
            assert all(row.learnt)
        outcomes = Outcomes(
            torch.tensor([row.correct for row in group]),
            torch.ones(4, dtype=torch.bool),
            torch.tensor([float(len(row.completion)) for row in group]),
            torch.tensor([float(b) for b in config.row_budgets]),
        )
        rewards = hbpo.reward(outcomes, config)
        expected = hbpo.advantage(rewards, outcomes, config).segments_BS[:, 0].tolist()
        assert all(len(set(row.advantages)) == 1 for row in group)
        assert [row.advantages[0] for row in group] == pytest.approx(expected)
        assert {row.group_accuracy for row in group} == {sum(r.correct for r in group) / 4}


def test_the_hint_may_stay_out_of_the_loss_and_the_count(reader: Reader) -> None:
    raw = {**HBPO, "loss_on_hint": False}
    for row in flat(collector(reader, raw).collect(0, by_noise(reader), Share())):
        hint = row.learnt.index(True)
        assert hint > 0 and all(row.learnt[hint:])


def test_thoughts_carry_segments_and_summaries(reader: Reader) -> None:
    found = collector(reader, BRPO).collect(0, by_noise(reader), Share())
    config = BrpoConfig.model_validate(BRPO)
    rows = flat(found)
    assert len(rows) == 8
    for start in range(0, 8, 2):
        group = rows[start : start + 2]
        correct_BmA = torch.tensor(
            [[[_says(reader, row, j * 2 + a) for a in range(2)] for j in range(2)] for row in group]
        )
        written_B = torch.tensor([len(row.completion) for row in group])
        outcomes = AnytimeOutcomes(correct_BmA, torch.ones_like(correct_BmA), written_B)
        expected = brpo.advantage(brpo.reward(outcomes, config), outcomes, config)
        tokens_BT = expected.tokens(written_B, int(written_B.max()))
        assert expected.summaries_BmA is not None
        for row, values, summaries in zip(group, tokens_BT, expected.summaries_BmA, strict=True):
            assert row.advantages == pytest.approx(values[: len(row.completion)].tolist())
            assert [c.advantage for c in row.chunks] == pytest.approx(summaries.flatten().tolist())
            assert len(row.completion) <= 8
            for chunk in row.chunks:
                # The tokens before an answer are the server's close, or the thought's own end.
                last = chunk.ids[: chunk.inserted]
                assert last in (reader.form.close.ids, (reader.end_id,))


def _says(reader: Reader, row: Row, chunk: int) -> bool:
    ids = row.chunks[chunk].ids[row.chunks[chunk].inserted :]
    return reader.text(ids).strip() == RIGHT


def test_groups_without_a_signal_are_replaced(reader: Reader) -> None:
    found = collector(reader, DAPO).collect(0, by_noise(reader, right_below=0.25), Share())
    assert found.metrics["generation_batches"] > 1
    assert found.metrics["zero_variance_share"] > 0
    groups = [flat(found)[i : i + 4] for i in range(0, 16, 4)]
    assert all(0 < sum(row.correct for row in group) < 4 for group in groups)
    assert all(all(row.learnt) for row in flat(found))


def test_where_no_group_tells_anything_nothing_is_learnt(reader: Reader) -> None:
    found = collector(reader, DAPO).collect(0, by_noise(reader, right_below=1), Share())
    assert found.metrics["generation_batches"] == 3
    assert [len(rows) for rows in found.updates] == [8, 8]
    assert not any(any(row.learnt) for row in flat(found))
    assert found.metrics["accuracy"] == found.metrics["zero_variance_share"] == 1


@pytest.mark.parametrize("raw", [HBPO, BRPO, {"method": "grpo", "longest": 64, "group_size": 4}])
def test_processes_share_what_one_would_do(reader: Reader, raw: dict[str, Any]) -> None:
    collecting, sampler = collector(reader, raw), by_noise(reader)
    alone = collecting.collect(3, sampler, Share())
    parts = [collecting.collect(3, sampler, Share(rank, 2)) for rank in range(2)]
    for update, rows in enumerate(alone.updates):
        assert rows == parts[0].updates[update] + parts[1].updates[update]
    mean = sum(part.metrics["reward"] for part in parts) / 2
    assert mean == pytest.approx(alone.metrics["reward"])


@pytest.mark.parametrize("raw", [HBPO, DAPO, BRPO])
def test_a_step_is_a_function_of_its_number(reader: Reader, raw: dict[str, Any]) -> None:
    sampler = by_noise(reader)
    first, again, later = (collector(reader, raw).collect(s, sampler, Share()) for s in (5, 5, 6))
    assert (first.updates, first.metrics) == (again.updates, again.metrics)
    assert flat(first)[0].prompt != flat(later)[0].prompt


def test_failed_verifiers_are_counted(reader: Reader) -> None:
    config = CONFIG.validate_python(HBPO)

    def broken(items: Iterable[tuple[Problem, str]]) -> list[Verdict]:
        return [Verdict(False, "time") for _ in items]

    step = Collector(config, TINY_TASKS, reader, broken, prompts=2, updates=1, seed=0)
    found = step.collect(0, by_noise(reader), Share())
    assert found.metrics["unjudged_answers"] == 8
    assert found.metrics["accuracy"] == 0
