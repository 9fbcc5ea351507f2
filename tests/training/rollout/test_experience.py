"""What a step learns from, on a sampler that is told what to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
import torch
from pydantic import TypeAdapter

from ponder.tasks.problems import Problem
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import Verdict
from ponder.training.method.batch import Batch, Context, Rollout
from ponder.training.method.brpo import BrpoConfig
from ponder.training.method.components import COMPONENTS
from ponder.training.method.hbpo import HbpoConfig
from ponder.training.method.presets import MethodConfig
from ponder.training.method.stages import LAST, PLACES, Component, Place, Stage
from ponder.training.rollout.drive import Sampler, pull
from ponder.training.rollout.experience import Collector, Experience, Share
from ponder.training.rollout.plans import Reader
from ponder.training.rollout.rows import Row
from training.method.scored import after, scored

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
            end = reader.form.end.token_id
            assert end is not None
            thought = [*word * int(2 + noise[1] * 9), end]
            whole = [*answer, eos] if end in prompt else [*thought, *answer, eos]
            if end in stop_ids:
                whole = thought
            written.append(whole[: len(noise)])
        return written

    return sampler


def correct(reader: Reader, row: Row) -> bool:
    answer = row.completion[row.completion.index(reader.form.end.token_id) + 1 : -1]
    return reader.text(answer).strip() == RIGHT


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
        seen = scored(
            [4],
            correct=[correct(reader, row) for row in group],
            formatted=torch.ones(4, dtype=torch.bool),
            length=[float(len(row.completion)) for row in group],
            budget=[float(b) for b in config.row_budgets],
        )
        expected = after(config, seen)["advantage"].tolist()
        assert all(len(set(row.advantages)) == 1 for row in group)
        assert [row.advantages[0] for row in group] == pytest.approx(expected)


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
        cut_Bm = torch.tensor([_cuts(reader, row, budgets=2) for row in group])
        seen = after(config, scored([2], summary_correct=correct_BmA, cut=cut_Bm))
        both = zip(group, seen["advantage"], seen["branch_advantage"], strict=True)
        for row, (early, late), summaries in both:
            within = 5 if row.completion[4:] == (reader.form.end.token_id,) else 4
            values = [*[float(early)] * within, *[float(late)] * (9 - within)]
            assert row.advantages == pytest.approx(values[: len(row.completion)])
            assert [c.advantage for c in row.chunks] == pytest.approx(summaries.flatten().tolist())
            assert len(row.completion) <= 8 + reader.end_tokens
            for chunk in row.chunks:
                # The tokens before an answer are the server's close, or the thought's own end.
                last = chunk.ids[: chunk.inserted]
                assert last in (reader.form.close.ids, (reader.form.end.token_id,))


def _cuts(reader: Reader, row: Row, budgets: int) -> list[int]:
    """What each budget left of a thought, from the chunks that follow it."""
    chunks = row.chunks[:: len(row.chunks) // budgets]
    ended = [chunk.ids[:1] == (reader.form.end.token_id,) for chunk in chunks]
    return [c.start - len(row.prompt) + end for c, end in zip(chunks, ended, strict=True)]


def _says(reader: Reader, row: Row, chunk: int) -> bool:
    ids = row.chunks[chunk].ids[row.chunks[chunk].inserted :]
    return reader.text(ids).strip() == RIGHT


def test_groups_without_a_signal_are_replaced(reader: Reader) -> None:
    found = collector(reader, DAPO).collect(0, by_noise(reader, right_below=0.25), Share())
    assert found.metrics["generation_batches"] > 1
    assert found.metrics["zero_variance_share"] > 0
    groups = [flat(found)[i : i + 4] for i in range(0, 16, 4)]
    assert all(0 < sum(correct(reader, row) for row in group) < 4 for group in groups)
    assert all(all(row.learnt) for row in flat(found))


def test_rows_carry_the_columns_that_the_objective_reads(reader: Reader) -> None:
    raw = {**DAPO, "method": "htpo", "dynamic_sampling": False}
    found = flat(collector(reader, raw).collect(0, by_noise(reader), Share()))
    for start in range(0, 16, 4):
        group = found[start : start + 4]
        rights = [correct(reader, row) for row in group]
        assert [row.columns["correct"] for row in group] == rights
        assert {row.columns["group_accuracy"] for row in group} == {sum(rights) / 4}
    plain = flat(collector(reader, DAPO).collect(0, by_noise(reader), Share()))
    assert not any(row.columns for row in plain)


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


def test_what_the_stages_keep_is_saved(reader: Reader, tmp_path: Path) -> None:
    kept = collector(reader, HBPO)
    kept._state["history"] = {"a": [1, 2]}
    kept.save(tmp_path)
    again = collector(reader, HBPO)
    again.load(tmp_path)
    assert again._state == {"history": {"a": [1, 2]}}
    with pytest.raises(FileNotFoundError, match=r"method\.json"):
        again.load(tmp_path / "none")


def test_sums_over_processes_need_somebody_to_add_them_up() -> None:
    ones = torch.ones(2)
    assert Share().added(ones) is ones
    assert Share(0, 2, lambda sums: sums * 2).added(ones).tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="give this Share a `reduce`"):
        Share(0, 2).added(ones)


class Sums(Component):
    """Asks for sums over processes, where it stands."""

    def __call__(self, batch: Batch, context: Context) -> Batch:
        context.reduce(torch.ones(1))
        return batch


@pytest.mark.parametrize(("place", "allowed"), [(p, p in LAST) for p in PLACES])
def test_sums_over_processes_come_once_a_step(
    place: Place, allowed: bool, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes replace unequally many groups, and would wait for each other."""
    monkeypatch.setitem(COMPONENTS, "sums", Sums)
    monkeypatch.setattr(Sums, "at", place, raising=False)
    collecting = collector(reader, {**DAPO, "add": [{"sums": {}}]})
    if allowed:
        assert collecting.collect(0, by_noise(reader), Share()).updates
    else:
        with pytest.raises(RuntimeError, match="before `credit` cannot reduce"):
            collecting.collect(0, by_noise(reader), Share())


class Halved(Component):
    """Keeps the first half of every group, and asks for more rollouts of the first prompt."""

    def stages(self) -> list[Stage]:
        return [First(), Lopsided()]


class First(Component):
    at: ClassVar[Place] = "select"

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.keep(torch.tensor([i < n // 2 for n in batch.sizes for i in range(n)]))


class Lopsided(Component):
    at: ClassVar[Place] = "allocate"

    def __call__(self, batch: Batch, context: Context) -> Batch:
        first, *others, last = batch.sizes
        return replace(batch, sizes=(first + last - 2, *others, 2))


def test_groups_may_differ_in_size(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMPONENTS, "halved", Halved)
    raw = {"method": "grpo", "longest": 64, "group_size": 6, "add": [{"halved": {}}]}
    found = collector(reader, raw).collect(0, by_noise(reader), Share())
    assert [len(rows) for rows in found.updates] == [5 + 3, 3 + 1]
    for rows in found.updates:
        for group in {
            row.prompt: [r for r in rows if r.prompt == row.prompt] for row in rows
        }.values():
            assert sum(row.advantages[0] for row in group) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("raw", [HBPO, BRPO, {"method": "grpo", "longest": 64, "group_size": 4}])
def test_a_plan_that_is_pushed_prompt_by_prompt_is_the_one_that_is_pulled(
    reader: Reader, raw: dict[str, Any]
) -> None:
    """An engine holds a generator for each prompt, and sends whatever is ready."""
    collecting, sampler = collector(reader, raw), by_noise(reader)
    prompts, size = [collecting._drawn(0, 0, n) for n in range(4)], raw["group_size"]
    plan = collecting._plan
    pulled = pull(plan.rollouts(prompts, [size] * 4), sampler)
    running = {n: plan.rollouts([prompt], [size]) for n, prompt in enumerate(prompts)}
    asked = {n: next(rounds) for n, rounds in running.items()}
    done: dict[int, list[Rollout]] = {}
    order = Random(0)
    while running:
        n = order.choice(sorted(running))
        try:
            round_ = asked[n]
            written = sampler(round_.prompts, round_.noise_BT, round_.stop_ids)
            asked[n] = running[n].send(written)
        except StopIteration as over:
            done[n] = over.value
            del running[n]
    assert [rollout for n in range(4) for rollout in done[n]] == pulled
