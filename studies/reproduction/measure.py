"""Measures a checkpoint of the study on held-out problems, in all modes, in one process.

The noise of a sample is keyed by its problem, so every checkpoint is sampled with the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.tasks.problems import Problem, held_out
from ponder.tasks.sources import find_tasks
from ponder.tasks.verifiers import verify
from ponder.tasks.worked import Worked
from ponder.training.coldstart.sft import fastest
from ponder.training.coldstart.thoughts import HINT
from ponder.training.method.batch import Prompt
from ponder.training.rollout import sampler
from ponder.training.rollout.plans import Reader, Response, hinted, plain, truncated

from .setting import ANSWER, BUDGETS, HELD_OUT, LONGEST, problems

EACH = 4
"""Problems of each family and difficulty, where there are as many."""
UNSEEN = 24
"""Problems of the held-out family, which no training sees."""
HINTS = BUDGETS
GRID = tuple(range(24, 385, 24))
NATURAL_SAMPLES = 8
MANY_SAMPLES = 16
"""Natural answers to a problem where pass@k is needed."""
FRONTIER_STEPS = 30
OTHER_SAMPLES = 2
_ROWS = 1024  # in one batch of the sampler: the longest thoughts go on almost alone
_SEED = 2


@dataclass(frozen=True, slots=True)
class Answers:
    """By test problem, in their order: its number of right answers and its mean thinking tokens."""

    samples: int
    correct: list[int]
    tokens: list[float]


@dataclass(frozen=True, slots=True)
class Measured:
    """A checkpoint's answers in every mode; `anytime[j]` counts right answers at GRID[j].

    `unseen` are natural answers to problems of the held-out family.
    """

    natural: Answers
    unseen: Answers
    hinted: dict[str, Answers]
    anytime_samples: int
    anytime: list[list[int]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@cache
def _test() -> list[Worked]:
    return problems(EACH, split="test")


def test_problems() -> list[Problem]:
    """The held-out problems of every scored measurement."""
    return [worked.problem for worked in _test()]


class Bench:
    """A checkpoint's weights with the tokenizer and contract of `form`, ready to be asked."""

    def __init__(self, weights: Path, form: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.reader = Reader(Checkpoint.load(ModelFiles.find(str(form))))
        model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
        self.model = model.to(fastest()).eval()
        self._prompts = self._prompted(test_problems())

    def natural(self, samples: int = NATURAL_SAMPLES) -> Answers:
        """Answers without a hint or a cut: the papers' natural mode."""
        return self._plain(self._prompts, samples)

    def everything(self, natural_samples: int = NATURAL_SAMPLES) -> Measured:
        unseen = held_out(find_tasks(HELD_OUT), UNSEEN, "test", _SEED)
        promises = {str(b): (b, self._encoded(HINT.format(budget=b))) for b in HINTS}
        thoughts = truncated(
            self._prompts,
            OTHER_SAMPLES,
            self.sample,
            self.reader,
            budgets=GRID,
            summaries=1,
            summary_tokens=ANSWER,
            grace=0,
        )
        anytime = [[0] * len(self._prompts) for _ in GRID]
        for i, thought in enumerate(thoughts):
            for j, answers in enumerate(thought.summaries):
                right = any(
                    answer.formatted and verify(thought.prompt.problem, answer.answer)
                    for answer in answers
                )
                anytime[j][i // OTHER_SAMPLES] += right
        return Measured(
            self.natural(natural_samples),
            self._plain(self._prompted(unseen), NATURAL_SAMPLES),
            {name: self._hinted(promise) for name, promise in promises.items()},
            OTHER_SAMPLES,
            anytime,
        )

    def floors(self) -> list[int]:
        """Tokens of each problem's shortest worked solution: the limit of savings."""
        return [len(self._encoded(worked.shortest())) for worked in _test()]

    def _prompted(self, asked: Sequence[Problem]) -> list[Prompt]:
        return [self.reader.prompt(problem, f"test/{problem.id}") for problem in asked]

    def _plain(self, prompts: Sequence[Prompt], samples: int) -> Answers:
        return self._tally(plain(prompts, samples, LONGEST, self.sample, self.reader), samples)

    def _hinted(self, promise: tuple[int, tuple[int, ...]]) -> Answers:
        responses = hinted(
            self._prompts, [promise] * OTHER_SAMPLES, LONGEST, self.sample, self.reader
        )
        return self._tally(responses, OTHER_SAMPLES)

    def _tally(self, responses: Sequence[Response], samples: int) -> Answers:
        right = [r.formatted and verify(r.prompt.problem, r.answer) for r in responses]
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
    """Sample in batches of prompts of similar length, which keeps memory and padding small."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    sampled: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        written = sampler.sample(model, [prompts[i] for i in rows], noise_BT[rows], stop_ids=stops)
        for row, ids in zip(rows, written, strict=True):
            sampled[row] = ids
    return sampled
