"""V_0's allocation of rollouts (arXiv 2602.03584): more for prompts that are likely to be mixed.

A group teaches if some of its rollouts are right and some wrong. For B rollouts, each right with
chance p, the probability of that is P(mixed) = 1 - p^B - (1 - p)^B. V_0 predicts p before sampling,
from the outcomes of the last steps' prompts, and then allocates a step's rollouts so that the
expected number of mixed groups is largest. Another rollout adds p^B·(1 - p) + (1 - p)^B·p, which
falls with B, so that a greedy allocation, one rollout at a time, is optimal.

The paper's predictor is a transformer trained on many policies' histories, which was not available.
Here the predictor is a calibration's (`evaluation/predictor.py`): a logistic regression on the mean
of the base's embeddings of a prompt. The bounds of a group's size are ours.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, ClassVar

import torch
from pydantic import Field

from .batch import Batch, Context
from .stages import Component, Place, Stage

_STATE = "v0"


class V0(Component):
    """V_0: allocates the rollouts of a step by predicted success (arXiv 2602.03584)."""

    predicts: ClassVar[bool] = True

    least: int = Field(2, ge=2, le=1024, description="rollouts of the smallest group")
    most: float = Field(
        4, ge=1, le=1024, description="largest group, as a multiple of method.group_size"
    )
    history: int = Field(256, ge=2, le=65536, description="latest prompts from which to predict")
    warmup: int = Field(
        64, ge=2, le=65536, description="prompts with equal groups before predictions begin"
    )

    def stages(self) -> Sequence[Stage]:
        return (Allocate(self), Remember(self))

    def notes(self, group_size: int) -> Iterator[str]:
        if self.least >= group_size:
            yield (
                f"v0 allocates nothing: v0.least = {self.least} is not below method.group_size = "
                f"{group_size}; lower the one or raise the other"
            )
        if self.warmup > self.history:
            yield (
                f"v0 never allocates: it waits for {self.warmup} prompts and remembers "
                f"{self.history}; raise v0.history or lower v0.warmup"
            )


def mixed(chance: float, size: int) -> float:
    """The probability that a group has a right and a wrong rollout: 1 - p^B - (1 - p)^B.

    >>> mixed(0.5, 2), round(mixed(0.1, 8), 4)
    (0.5, 0.5695)
    """
    return 1 - chance**size - (1 - chance) ** size


def allocated(chances: Sequence[float], total: int, least: int, most: int) -> list[int]:
    """Sizes that add up to `total`, with the largest expected number of mixed groups.

    >>> allocated([0.5, 0.05, 0.99], total=12, least=2, most=8)
    [5, 5, 2]
    """
    sizes = [least] * len(chances)
    if least == most:
        return sizes

    def entry(q: int) -> tuple[float, int, int]:
        gain = mixed(chances[q], sizes[q] + 1) - mixed(chances[q], sizes[q])
        return -gain, sizes[q], q

    heap = [entry(q) for q in range(len(chances))]
    heapq.heapify(heap)
    for _ in range(total - least * len(chances)):
        _, _, q = heap[0]
        sizes[q] += 1
        if sizes[q] < most:
            heapq.heapreplace(heap, entry(q))
        else:
            heapq.heappop(heap)
    return sizes


@dataclass(frozen=True, slots=True)
class Allocate:
    """Sizes of the groups, by predicted chances; equal ones until `warmup` prompts are known."""

    config: V0
    at: ClassVar[Place] = "allocate"
    reads: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        history: list[Any] = context.state.get(_STATE, [])
        if len(history) < self.config.warmup:
            return batch
        asked = [prompt.problem.question for prompt in batch.prompts]
        chances = context.predict(asked, [(question, share) for question, share in history])
        usual = max(batch.sizes)
        least = min(self.config.least, *batch.sizes)
        sizes = allocated(chances, sum(batch.sizes), least, round(usual * self.config.most))
        return replace(batch, sizes=tuple(sizes))


@dataclass(frozen=True, slots=True)
class Remember:
    """Keeps the outcomes of this step's prompts, of all processes."""

    config: V0
    at: ClassVar[Place] = "credit"
    reads: ClassVar[frozenset[str]] = frozenset({"accuracy"})
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        questions: list[str] = []
        shares: list[float] = []
        for sampled in context.sampled:
            accuracy = sampled["accuracy"].tolist()
            for prompt, (low, high) in zip(sampled.prompts, sampled.bounds, strict=True):
                questions.append(prompt.problem.question)
                shares.append(fmean(accuracy[low:high]))
        everything, _ = context.gather(torch.tensor(shares, dtype=torch.double))
        texts, _ = context.gather(torch.tensor([*_bytes(questions)], dtype=torch.double))
        told = bytes(texts.int().tolist()).decode("utf-8").split("\0")[:-1]
        news = [list(pair) for pair in zip(told, everything.tolist(), strict=True)]
        known = context.state.get(_STATE, [])
        context.state[_STATE] = [*known, *news][-self.config.history :]
        return batch


def _bytes(questions: Sequence[str]) -> bytes:
    """Each question with a zero byte behind it, which no question contains."""
    return "".join(question.replace("\0", " ") + "\0" for question in questions).encode("utf-8")
