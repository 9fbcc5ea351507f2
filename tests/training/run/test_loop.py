"""The loop calls its engine in order, and counts steps once: an engine that only writes it down."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import pytest
import torch

from ponder.training.engines.protocol import Learnt, Packed, TrainingEngine, WorkersLost
from ponder.training.method.kernel import Objective, PerToken
from ponder.training.rollout.drive import Sampler
from ponder.training.rollout.experience import Experience, Share
from ponder.training.rollout.rows import Row
from ponder.training.run.loop import Loop
from ponder.training.run.watch import Progress
from training.policy import metrics, recipe
from waiting import wait_until

ROW = Row((1,), (2, 3), (1.0, 1.0), (True, True))


@dataclass
class Diary:
    """A `TrainingEngine` of `world` equal processes; `learns` says what an update measures."""

    world: int = 1
    updates: int = 0
    learns: Mapping[str, float] = field(
        default_factory=lambda: {"loss": 0.5, "tokens": 4.0, "entropy": 2.0}
    )
    lines: list[str] = field(default_factory=list)
    told: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    fails_at: int | None = None
    model: Any = None

    @property
    def share(self) -> Share:
        return Share(0, self.world)

    @contextmanager
    def sampler(self, greedy: bool = False) -> Iterator[Sampler]:
        self.lines.append("sample")
        yield lambda *_: []

    def pack(self, rows: Sequence[Row], remember: bool, behind: int = 0) -> Packed:
        told = f"{' remembered' if remember else ''}{f' {behind} behind' if behind else ''}"
        self.lines.append(f"pack {len(rows)}{told}")
        return []

    def update(
        self,
        packed: Packed,
        objective: Objective,
        denominator: float,
    ) -> Learnt:
        self.lines.append(f"update of {denominator:g}")
        self.updates += 1
        return Learnt(float(self.updates), 0.1, self.learns)

    def reduce(self, values: Mapping[str, float]) -> dict[str, float]:
        return {name: value * self.world for name, value in values.items()}

    def wait(self) -> None: ...

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from ()

    def save_adapters(self, directory: Path) -> None: ...

    def save(self, directory: Path) -> None:
        self.lines.append(f"save {directory.name}")

    def resume(self, directory: Path) -> None: ...

    def report(self, update: int, figures: Mapping[str, float]) -> None:
        self.told.append((update, figures))

    def show(self, update: int, samples: Sequence[Mapping[str, object]]) -> None:
        self.lines.append(f"show {len(samples)} after {update}")

    def close(self) -> None: ...


class Two:
    """Experience for two updates, of one row and of two."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    def roll_out(self, step: int, sampler: Sampler, share: Share) -> int:
        if current_thread() is not main_thread():  # the step before learns meanwhile
            wait_until(lambda: self._diary.updates > 2 * step - 2)
        if step == self._diary.fails_at:
            raise WorkersLost("a server died")
        self._diary.lines.append(f"roll out {step}")
        return step

    def credit(self, rolled: int, share: Share) -> Experience:
        self._diary.lines.append(f"credit {rolled}")
        measured = {"accuracy": 0.5, "thinking_tokens": 7.0, "sampled_tokens": 10.0}
        return Experience([[ROW], [ROW, ROW]], measured, [{"problem": rolled}])

    def save(self, directory: Path) -> None: ...


def run(tmp_path: Path, diary: TrainingEngine, end: float = math.inf, **sections: Any) -> list[str]:
    """What the diary holds after the recipe's last step."""
    assert isinstance(diary, Diary)
    plan = {"steps": 3, "updates": 2, **sections.pop("optimisation", {})}
    own = recipe(tmp_path, "grpo", optimisation=plan, **sections)
    done = diary.updates // own.optimisation.updates
    watch = Progress(tmp_path, name="x", steps=3, done=done, main=True, bar=False)

    def ask(_: Sampler) -> Mapping[str, float]:
        diary.lines.append("ask")
        return {"correct": 1.0, "thinking_tokens": 30.0, "responses": 4.0}

    Loop(
        own,
        diary,
        Two(diary),  # type: ignore[arg-type]  # a collector is a class of its own
        objective=lambda rows: PerToken(rows.log_probs_BT, {}),
        denominator=lambda rows: float(sum(row.learnt_tokens for row in rows)),
        ask=ask,
        export=lambda: diary.lines.append("export"),
        observe=lambda step, _: diary.lines.append(f"observe {step}"),
        watch=watch,
        out=tmp_path,
        end=end,
    ).run()
    return diary.lines


def step(number: int) -> list[str]:
    drawn = ["sample", f"roll out {number - 1}", f"credit {number - 1}", f"observe {number}"]
    return [*drawn, "pack 1", "pack 2 remembered", "update of 2", "update of 4"]


def test_a_step_is_what_the_page_says(tmp_path: Path) -> None:
    sections = {"validation": {"every": 2, "problems": 4}, "checkpoints": {"every": 2}}
    assert run(tmp_path, Diary(), **sections) == [
        *("sample", "ask", "export"),
        *step(1),
        *(*step(2), "show 1 after 4", "sample", "ask", "save checkpoint-4"),
        *(*step(3), "show 1 after 6", "sample", "ask", "save checkpoint-6"),
    ]
    lines = metrics(tmp_path)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("validation", 0), ("step", 1), ("step", 2), ("validation", 2), ("step", 3),
        ("validation", 3),
    ]  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "checkpoint-4",
        "checkpoint-6",
    ]


AHEAD = {"engine": "http", "servers": ["http://127.0.0.1:1"], "steps_ahead": 1}


def test_the_rollouts_of_a_step_are_drawn_while_the_one_before_learns(tmp_path: Path) -> None:
    sections = {"validation": {"every": 2, "problems": 4}, "checkpoints": {"every": 2}}
    lines = run(tmp_path, Diary(), rollouts=AHEAD, **sections)
    own = [line for line in lines if not line.startswith("roll out")]
    behind = ["pack 1 2 behind", "pack 2 remembered 2 behind", "update of 2", "update of 4"]
    assert own == [
        *("sample", "ask", "export", "sample", "credit 0"),
        *("sample", "observe 1", "pack 1", "pack 2 remembered", "update of 2", "update of 4"),
        *("credit 1", "sample", "observe 2", *behind, "show 1 after 4"),
        *("sample", "ask", "save checkpoint-4"),
        *("credit 2", "observe 3", *behind, "show 1 after 6", "sample", "ask", "save checkpoint-6"),
    ]
    first, second = (lines.index(f"roll out {step}") for step in (1, 2))
    assert lines.index("update of 2") < first < lines.index("credit 1")
    validated = len(lines) - lines[::-1].index("save checkpoint-4")
    assert second < validated, "servers change their weights when nothing is drawn"
    assert [line["staleness"] for line in metrics(tmp_path, "step")] == [0, 2, 2]


def test_what_is_drawn_ahead_and_fails_ends_the_run(tmp_path: Path) -> None:
    diary = Diary(fails_at=1)
    with pytest.raises(WorkersLost, match="a server died"):
        run(tmp_path, diary, rollouts=AHEAD)
    assert diary.updates == 2


def test_a_run_goes_on_where_its_engine_stands(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "validation", "step": 0, "accuracy": 0.9, "thinking_tokens": 3}\n'
        '{"kind": "step", "step": 3}\n'
    )
    lines = run(tmp_path, Diary(updates=4))
    shown = "show 1 after 6"
    assert lines == [*step(3), shown, "sample", "ask", "save checkpoint-6"], "and none were better"
    assert [line["step"] for line in metrics(tmp_path)] == [0, 3, 3]
    done = Diary(updates=6)
    assert run(tmp_path, done) == []


def test_the_step_that_outlasts_the_time_is_saved_and_the_last_one(tmp_path: Path) -> None:
    sections = {"validation": {"every": 2, "problems": 4}, "checkpoints": {"every": 2}}
    lines = run(tmp_path, Diary(), end=0.0, **sections)
    assert lines == ["sample", "ask", "export", *step(1), "save checkpoint-2"]
    assert run(tmp_path, Diary(updates=2), **sections)[: len(step(2))] == step(2)


def test_processes_are_averaged_and_what_is_counted_added(tmp_path: Path) -> None:
    diary = Diary(world=2, learns={"loss": 0.5, "tokens": 4.0, "entropy": 2.0, "clipped_low": 1.0})
    run(tmp_path, diary, optimisation={"steps": 1})
    (line,) = metrics(tmp_path, "step")
    assert line == {
        "kind": "step", "step": 1, "loss": 0.5, "grad_norm": 2.0, "learning_rate": 0.1,
        "entropy": 0.5, "clipped_low": 0.25, "learnt_tokens": 16.0,
        "accuracy": 0.5, "thinking_tokens": 7.0, "sampled_tokens": 20.0,
    }  # fmt: skip


def test_what_a_sampler_tells_is_averaged_where_it_is_known(tmp_path: Path) -> None:
    sums = {"loss": 0.5, "tokens": 4.0, "entropy": 2.0, "sampler_unknown": 3.0}
    run(tmp_path, Diary(learns={**sums, "sampler_ratio": 1.5}), optimisation={"steps": 1})
    (line,) = metrics(tmp_path, "step")
    told = {name: line[name] for name in ("entropy", "sampler_unknown", "sampler_ratio")}
    assert told == {"entropy": 0.5, "sampler_unknown": 0.75, "sampler_ratio": 1.5}


def test_trackers_hear_of_steps_by_their_updates(tmp_path: Path) -> None:
    diary = Diary()
    run(tmp_path, diary, validation={"every": 3, "problems": 4})
    assert [(update, min(figures).split("/")[0]) for update, figures in diary.told] == [
        (0, "eval"), (2, "train"), (4, "train"), (6, "train"), (6, "eval"),
    ]  # fmt: skip
    assert diary.told[0][1] == pytest.approx({"eval/accuracy": 0.25, "eval/thinking_tokens": 7.5})


def test_samples_with_other_line_ends_are_kept(tmp_path: Path) -> None:
    """A resumed run reads what it wrote, up to the half line of a killed one."""
    told = {"problem": "a\u2028b\x85c\x0c?", "step": 1}
    whole = json.dumps(told, ensure_ascii=False)
    (tmp_path / "samples.jsonl").write_text(f"{whole}\n{whole[:20]}", encoding="utf-8")
    Progress(tmp_path, name="run", steps=2, done=1, main=True, bar=False)
    assert (tmp_path / "samples.jsonl").read_text("utf-8") == f"{whole}\n"
