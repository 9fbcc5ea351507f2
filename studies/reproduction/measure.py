"""Measuring a checkpoint of the study on held-out problems, all modes, in one process.

Samples are keyed by the problem, so every checkpoint is asked with the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.evaluation.protocol import MINIMAL_HINT
from ponder.tasks.problems import Problem, held_out
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.worked import Worked, WorkedTask
from ponder.training.coldstart.thoughts import HINT, write_thought
from ponder.training.rollout import sampler
from ponder.training.rollout.plans import Reader, Response, hinted, plain, truncated

PROBLEMS = 210
PROBLEM_SEED = 2
LONGEST = 320
HINTS = (40, 80, 160, 200)
GRID = tuple(range(20, 321, 20))
NATURAL_SAMPLES = 16
OTHER_SAMPLES = 4
SUMMARY_TOKENS = 16
_ROWS = 256  # in one batch of the sampler

_JUDGES = {task.name: task for task in TINY_TASKS}


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to the test problems, in their order: right ones and mean thinking tokens, each."""

    samples: int
    correct: list[int]
    tokens: list[float]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a checkpoint does in every mode; `anytime[j]` counts right answers at GRID[j]."""

    natural: Answers
    efficient: Answers | None
    hinted: dict[str, Answers]
    anytime_samples: int
    anytime: list[list[int]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def test_problems() -> list[Problem]:
    """The held-out problems of every scored measurement."""
    return held_out(TINY_TASKS, PROBLEMS, "test", PROBLEM_SEED)


class Bench:
    """A checkpoint's weights with the tokenizer and contract of `form`, ready to be asked."""

    def __init__(self, weights: Path, form: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.reader = Reader(Checkpoint.load(ModelFiles.find(str(form))))
        self.model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
        self._prompts = [self.reader.prompt(p, f"test/{p.id}") for p in test_problems()]

    def natural(self, samples: int = NATURAL_SAMPLES) -> Answers:
        """No hint, free thinking: what the papers call natural mode."""
        return self._tally(
            plain(self._prompts, samples, LONGEST, self.sample, self.reader), samples
        )

    def everything(self, natural_samples: int = NATURAL_SAMPLES) -> Measured:
        minimal = (0, self._encoded(MINIMAL_HINT))
        promises = {str(b): (b, self._encoded(HINT.format(budget=b))) for b in HINTS}
        thoughts = truncated(
            self._prompts,
            OTHER_SAMPLES,
            self.sample,
            self.reader,
            budgets=GRID,
            summaries=1,
            summary_tokens=SUMMARY_TOKENS,
            grace=0,
        )
        anytime = [[0] * len(self._prompts) for _ in GRID]
        for i, thought in enumerate(thoughts):
            for j, answers in enumerate(thought.summaries):
                right = any(
                    answer.formatted and _right(thought.prompt.problem, answer.answer)
                    for answer in answers
                )
                anytime[j][i // OTHER_SAMPLES] += right
        return Measured(
            self.natural(natural_samples),
            self._hinted(minimal),
            {name: self._hinted(promise) for name, promise in promises.items()},
            OTHER_SAMPLES,
            anytime,
        )

    def floors(self) -> list[int]:
        """Tokens of the shortest worked solution of each problem: how far savings can go."""
        return [len(self._encoded(text)) for text in _shortest_traces()]

    def _hinted(self, promise: tuple[int, tuple[int, ...]]) -> Answers:
        responses = hinted(
            self._prompts, [promise] * OTHER_SAMPLES, LONGEST, self.sample, self.reader
        )
        return self._tally(responses, OTHER_SAMPLES)

    def _tally(self, responses: Sequence[Response], samples: int) -> Answers:
        right = [r.formatted and _right(r.prompt.problem, r.answer) for r in responses]
        starts = range(0, len(responses), samples)
        return Answers(
            samples,
            [sum(right[i : i + samples]) for i in starts],
            [sum(r.thinking_tokens for r in responses[i : i + samples]) / samples for i in starts],
        )

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self.reader.tokenizer.encode(text))

    def sample(
        self, prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stops: frozenset[int]
    ) -> list[list[int]]:
        return in_batches(self.model, prompts, noise_BT, stops)


def in_batches(
    model: Any, prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stops: frozenset[int]
) -> list[list[int]]:
    """Sampled in batches of prompts of similar length, which keeps memory and padding small."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    sampled: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        written = sampler.sample(model, [prompts[i] for i in rows], noise_BT[rows], stop_ids=stops)
        for row, ids in zip(rows, written, strict=True):
            sampled[row] = ids
    return sampled


def _right(problem: Problem, text: str) -> bool:
    return _JUDGES[problem.family].verify(problem, text)


@dataclass(frozen=True, slots=True)
class _Recorder:
    """A tiny task that remembers how its problems are solved."""

    task: WorkedTask
    seen: dict[str, Worked]

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def difficulties(self) -> tuple[int, ...]:
        return self.task.difficulties

    def sample(self, rng: Random, difficulty: int) -> Problem:
        worked = self.task.work(rng, difficulty)
        self.seen[worked.problem.id] = worked
        return worked.problem

    def verify(self, problem: Problem, text: str) -> bool:
        return self.task.verify(problem, text)


def _shortest_traces() -> list[str]:
    """The test problems' terse solutions."""
    seen: dict[str, Worked] = {}
    recorders = tuple(_Recorder(task, seen) for task in TINY_TASKS)
    problems = held_out(recorders, PROBLEMS, "test", PROBLEM_SEED)
    return [
        "".join(piece.text for piece in write_thought(seen[p.id], "terse", 0, Random(0)))
        for p in problems
    ]
